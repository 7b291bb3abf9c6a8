"""The non-local operation for the four pairwise functions: Section 3.1 and 3.2, Eq. 1-5.

    y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j)                                     Eq. 1

Shapes: B images, N positions i, M positions j (after subsampling), d channels of theta and phi, D of g.
Every function takes theta (B, d, N), phi (B, d, M) and g (B, D, M), and returns y (B, D, N).

The lines under "matrix" are the equations, with f written out for all pairs. The others compute the same y
without that matrix; `kernels.py` says how, and which is taken for what sizes. Sums are in float32 or
better, whatever the precision of the features.
"""

import torch
from torch import Tensor

from .kernels import fused_attention, select_kernel, sorted_concatenation


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """f = exp(scale * theta_i . phi_j) and C(x) = sum_j f, so that f / C(x) is a softmax over j.

    This is Eq. 3 (embedded Gaussian) and, with theta = phi = x, Eq. 2 (Gaussian). The paper has `scale` 1.
    """
    if select_kernel("softmax", theta, phi, g) == "fused":
        return fused_attention(theta, phi, g, scale)
    # "matrix"
    theta, phi, g = _float32(theta), _float32(phi), _float32(g)
    logits = torch.bmm(theta.transpose(1, 2), phi).mul_(scale)  # (B, N, M)
    weights = logits.softmax(dim=2)  # (B, N, M), f / C(x)
    return _weighted_sum(weights, g)


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """f = theta_i . phi_j and C(x) = M: Eq. 4. A product of three matrices can start at either end."""
    theta, phi, g = _float32(theta), _float32(phi), _float32(g)
    m = phi.shape[2]
    if select_kernel("dot_product", theta, phi, g) == "associative":
        phi_g = torch.bmm(g, phi.transpose(1, 2)) / m  # (B, D, d)
        return torch.bmm(phi_g, theta)  # (B, D, N)
    # "matrix"
    weights = torch.bmm(theta.transpose(1, 2), phi).div_(m)  # (B, N, M), f / C(x)
    return _weighted_sum(weights, g)


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """f = ReLU(w_f . [theta_i, phi_j]) and C(x) = M: Eq. 5.

    `w_f` has 2d elements, theta's half first. Its product with a pair is a_i + b_j, so no pair has to be
    concatenated.
    """
    theta, phi, g, w_f = _float32(theta), _float32(phi), _float32(g), _float32(w_f)
    m = phi.shape[2]
    # ReLU(a_i + b_j) / M = ReLU(a_i / M + b_j / M)
    w_theta, w_phi = (w_f.flatten() / m).chunk(2)  # (d,), (d,)
    images = theta.shape[0]
    a = torch.bmm(w_theta.expand(images, 1, -1), theta)  # (B, 1, N)
    b = torch.bmm(w_phi.expand(images, 1, -1), phi)  # (B, 1, M)
    if select_kernel("concatenation", theta, phi, g) == "sorted":
        return sorted_concatenation(a.squeeze(1), b.squeeze(1), g)
    # "matrix"
    weights = (a.transpose(1, 2) + b).relu_()  # (B, N, M), f / C(x)
    return _weighted_sum(weights, g)


def _weighted_sum(weights: Tensor, g: Tensor) -> Tensor:
    """y_i = sum_j weights_ij g_j: Eq. 1."""
    y = torch.bmm(weights, g.transpose(1, 2))  # (B, N, D)
    return y.transpose(1, 2)  # (B, D, N)


def _float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
