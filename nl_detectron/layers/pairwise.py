"""The non-local operation for the four pairwise functions: Section 3.1 and 3.2, Eq. 1-5.

    y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j)                                     Eq. 1

Shapes: B images, N positions i, M positions j (after subsampling), d channels of theta and phi, D of g.
Every function takes theta (B, d, N), phi (B, d, M) and g (B, D, M), and returns y (B, D, N).

The functions `*_rows`, and the lines under "matrix", are the equations, with f written out for all pairs. The
others compute the same y without that matrix; `kernels.py` says how, and which is taken for what sizes.
PyTorch's products, softmax and sums are in float32 or better inside, whatever the precision of what goes in
and comes out.
"""

import torch
from torch import Tensor

from .kernels import fused_attention, in_slabs, select_kernel, sorted_concatenation


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """f = exp(scale * theta_i . phi_j) and C(x) = sum_j f, so that f / C(x) is a softmax over j.

    This is Eq. 3 (embedded Gaussian) and, with theta = phi = x, Eq. 2 (Gaussian). The paper has `scale` 1.
    """
    theta, phi, g = _operands(theta, phi, g)
    kernel = select_kernel("softmax", theta, phi, g)
    if kernel == "fused":
        return fused_attention(theta, phi, g, scale)
    if kernel == "slabs":
        return _softmax_in_slabs(theta, phi, g, scale)
    return _softmax_rows(theta, phi, g, scale)


def _softmax_rows(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """y of all positions i, or of a part of them."""
    if _is_on_gpu(theta):
        logits = _product(theta.transpose(1, 2), phi, scale)  # (B, N, M)
    else:  # cheaper on CPUs, as the gradients of theta and phi need no scaling
        logits = torch.bmm(theta.transpose(1, 2), phi).mul_(scale)
    weights = logits.softmax(dim=2)  # (B, N, M), f / C(x)
    return _weighted_sum(weights, g, 1.0)


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """f = theta_i . phi_j and C(x) = M: Eq. 4. A product of three matrices can start at either end."""
    theta, phi, g = _operands(theta, phi, g)
    m = phi.shape[2]
    if select_kernel("dot_product", theta, phi, g) == "associative":
        phi_g = _product(g, phi.transpose(1, 2), 1 / m)  # (B, D, d)
        return _product(phi_g, theta, 1.0)  # (B, D, N)
    # "matrix"
    f = _product(theta.transpose(1, 2), phi, 1.0)  # (B, N, M)
    return _weighted_sum(f, g, 1 / m)


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """f = ReLU(w_f . [theta_i, phi_j]) and C(x) = M: Eq. 5.

    `w_f` has 2d elements, theta's half first. Its product with a pair is a_i + b_j, so no pair has to be
    concatenated.
    """
    theta, phi, g = _operands(theta, phi, g)
    m = phi.shape[2]
    w_theta, w_phi = w_f.to(theta.dtype).flatten().chunk(2)  # (d,), (d,)
    images = theta.shape[0]
    a = _product(w_theta.expand(images, 1, -1), theta, 1.0)  # (B, 1, N)
    b = _product(w_phi.expand(images, 1, -1), phi, 1.0)  # (B, 1, M)
    kernel = select_kernel("concatenation", theta, phi, g)
    if kernel == "sorted":
        a, b = at_least_float32(a.squeeze(1)), at_least_float32(b.squeeze(1))
        # ReLU(a_i + b_j) / M = ReLU(a_i / M + b_j / M)
        return saturate_(sorted_concatenation(a / m, b / m, g))
    if kernel == "slabs":
        return _concatenation_in_slabs(a, b, g)
    return _concatenation_rows(a, b, g)


def _concatenation_rows(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """y (B, D, N) of a (B, 1, N), of all positions i or of a part of them, and b (B, 1, M)."""
    f = saturate_(a.transpose(1, 2) + b).relu_()  # (B, N, M)
    return _weighted_sum(f, g, 1 / b.shape[2])


@torch.jit.unused
def _softmax_in_slabs(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    return in_slabs(lambda rows: _softmax_rows(rows, phi, g, scale), theta, phi.shape[2])


@torch.jit.unused
def _concatenation_in_slabs(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    return in_slabs(lambda rows: _concatenation_rows(rows, b, g), a, b.shape[2])


def _weighted_sum(f: Tensor, g: Tensor, scale: float) -> Tensor:
    """y_i = scale * sum_j f_ij g_j: Eq. 1."""
    y = _product(f, g.transpose(1, 2), scale)  # (B, N, D)
    return y.transpose(1, 2)  # (B, D, N)


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """scale * a b of two batches of matrices. `scale` multiplies the sums before they are rounded."""
    return saturate_(torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale))


def saturate_(x: Tensor) -> Tensor:
    """Replace infinity in x, if it is of float16, by the largest value, 65504. The gradient stays as it is.

    Infinity would become nan in a softmax, in a sum with its negative, and at the zero scale of a new block.
    """
    if x.dtype == torch.float16:
        x.detach().clamp_(-65504.0, 65504.0)
    return x


def _operands(theta: Tensor, phi: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """On GPUs all in the precision of g, as under autocast theta = phi = x may have another; on CPUs in
    float32 or better.
    """
    if not _is_on_gpu(g):
        return at_least_float32(theta), at_least_float32(phi), at_least_float32(g)
    if theta.dtype != g.dtype:
        theta, phi = saturate_(theta.to(g.dtype)), saturate_(phi.to(g.dtype))
    return theta, phi, g


def _is_on_gpu(x: Tensor) -> bool:
    return x.is_cuda


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
