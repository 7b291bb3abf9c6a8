"""The non-local operation for the four pairwise functions: Section 3.1-3.2, Eq. 1-5.

    y_i = 1/C(x) * sum_j f(x_i, x_j) g(x_j)                                     Eq. 1

B is the batch, N the number of positions i, M the number of positions j (after subsampling), d the
channels of theta and phi, D those of g. Every function takes `theta` (B, d, N), `phi` (B, d, M) and
`g` (B, D, M), and returns y (B, D, N), its channels last in memory where theta has them so, and where
fused attention leaves them last.

Each is computed in one of several ways, all of them exact; `cost` says which for what sizes. Sums are in
float32 or better, whatever the inputs. A scripted, traced or compiled graph is for all sizes: it has the
way whose memory grows with N + M (on CPUs not for "gaussian", as PyTorch's kernel wants d = D there).
ONNX has neither fused attention nor searchsorted: its graphs hold the matrix, but for the dot product.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .active_sums import active_sums, sort_active, sorted_concatenation
from .attention import blocked_attention, fused_attention
from .cost import Sizes, cheapest
from .layout import empty_in_layout_of, weighted_sum


def softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
    """f = exp(logit_scale * theta_i . phi_j), C(x) = sum_j f: Eq. 2 and 3, a softmax over j.

    Eq. 2 (Gaussian) is the case theta = phi = x. The paper has `logit_scale` 1.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript would compile both conditions
        if not _is_for_all_sizes():
            return _softmax_attention(theta, phi, g, logit_scale)
    return fused_attention(theta, phi, g, logit_scale)


def dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """f = theta_i . phi_j, C(x) = M: Eq. 4, where the product of three can start at either end."""
    theta, phi, g = _float32(theta), _float32(phi), _float32(g)
    if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript would compile both conditions
        if not _is_for_all_sizes():
            return _dot_product(theta, phi, g)
    return torch.bmm(torch.bmm(g, phi.transpose(1, 2)) / phi.shape[2], theta)


def concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """f = ReLU(w_f . [theta_i, phi_j]), C(x) = M: Eq. 5.

    `w_f` has 2d elements, theta's half first. Its product with a pair splits into a_i + b_j, so no pair
    is ever concatenated.
    """
    theta, phi, g, w_f = _float32(theta), _float32(phi), _float32(g), _float32(w_f)
    w_theta, w_phi = (w_f.flatten() / phi.shape[2]).chunk(2)  # ReLU(a_i + b_j) / M = ReLU(a_i / M + b_j / M)
    batch = theta.shape[0]  # bmm, as matmul would copy theta and phi
    a = torch.bmm(w_theta.expand(batch, 1, -1), theta).squeeze(1)  # (B, N)
    b = torch.bmm(w_phi.expand(batch, 1, -1), phi).squeeze(1)  # (B, M)
    if not torch.jit.is_scripting():
        if not _is_for_all_sizes():
            return _concatenation(a, b, g, _sizes(theta, phi, g))
        if torch.onnx.is_in_onnx_export():  # which has no searchsorted
            return weighted_sum((a.unsqueeze(1) + b.unsqueeze(2)).relu(), g)
    return active_sums(sort_active(a, b), g)[1].to(g.dtype)


def _softmax_attention(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
    training = torch.is_grad_enabled() and (theta.requires_grad or phi.requires_grad or g.requires_grad)
    if not training and theta.device.type != "cpu" and theta.dtype != torch.float64:
        return fused_attention(theta, phi, g, logit_scale)  # in half precision, on what is built for it
    theta, phi, g = _float32(theta), _float32(phi), _float32(g)
    way, _ = cheapest("embedded_gaussian", _sizes(theta, phi, g), training)
    if way == "blocks":
        return blocked_attention(theta, phi, g, logit_scale)
    if way == "fused":
        return fused_attention(theta, phi, g, logit_scale)
    logits = torch.bmm(phi.transpose(1, 2), theta).mul_(logit_scale)  # (B, M, N)
    return weighted_sum(logits.softmax(dim=1), g)


def _dot_product(theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    if cheapest("dot_product", _sizes(theta, phi, g), training=False)[0] == "channels":
        return _ChannelsFirst.apply(theta, phi, g)[0]
    affinity = torch.bmm(phi.transpose(1, 2), theta).div_(phi.shape[2])  # (B, M, N)
    return weighted_sum(affinity, g)


def _concatenation(a: Tensor, b: Tensor, g: Tensor, sizes: Sizes) -> Tensor:
    if cheapest("concatenation", sizes, training=False)[0] == "sorted":
        return sorted_concatenation(a, b, g)
    affinity = (a.unsqueeze(1) + b.unsqueeze(2)).relu_()  # (B, M, N)
    return weighted_sum(affinity, g)


class _ChannelsFirst(torch.autograd.Function):
    """theta (phi^T g) / M, and that product of phi and g.

    Its gradients are written where autograd's would have to be transposed to; and by `out`,
    which autocast leaves alone if it is on in the backward pass.
    """

    @staticmethod
    def forward(theta: Tensor, phi: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        product = torch.bmm(g, phi.transpose(1, 2)).div_(phi.shape[2])  # (B, D, d)
        y = empty_in_layout_of(theta, g.shape[1], theta.shape[2])
        return torch.bmm(product, theta, out=y), product

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)  # which for the product would be zeros
        ctx.save_for_backward(*inputs, output[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None
        theta, phi, g, product = ctx.saved_tensors
        dproduct = torch.bmm(dy, theta.transpose(1, 2), out=torch.empty_like(product)).div_(phi.shape[2])
        dphi = torch.bmm(dproduct.transpose(1, 2), g, out=torch.empty_like(phi))
        dg = torch.bmm(dproduct, phi, out=torch.empty_like(g))
        del dproduct
        return torch.bmm(product.transpose(1, 2), dy, out=torch.empty_like(theta)), dphi, dg


def _sizes(theta: Tensor, phi: Tensor, g: Tensor) -> Sizes:
    return Sizes(theta.shape[0], theta.shape[2], phi.shape[2], theta.shape[1], g.shape[1])


def _float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _is_for_all_sizes() -> bool:
    """Whether this becomes a graph that other sizes will go through as well."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()
