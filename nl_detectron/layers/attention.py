"""The softmax forms (Eq. 2 and 3) without their N x M matrix; the letters and shapes are `pairwise`'s.

y_i = sum_j p_ij g_j,  p_ij = softmax over j of logit_scale * theta_i . phi_j
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .cost import BLOCK_BYTES
from .layout import empty_in_layout_of, is_channels_last

CACHE_LINE = 16  # float32


def fused_attention(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
    """y (B, D, N) by PyTorch's fused attention with one head, whose logits and softmax are in float32."""
    query = theta.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, N, d)
    key = phi.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, M, d)
    value = g.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, M, D)
    y = F.scaled_dot_product_attention(query, key, value, scale=logit_scale)
    return y.squeeze(1).transpose(1, 2)


def blocked_attention(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
    """y (B, D, N), of whose matrix BLOCK_BYTES are held at a time, in the gradients too.

    Not twice differentiable.
    """
    return _BlockedAttention.apply(theta, phi, g, logit_scale)


class _BlockedAttention(torch.autograd.Function):
    """Goes through the matrix in blocks of whole rows, and computes them again for the gradients:

    dp_ij = dy_i . g_j and dlogit_ij = p_ij (dp_ij - dy_i . y_i), as in FlashAttention's backward pass.
    """

    @staticmethod
    def forward(theta: Tensor, phi: Tensor, g: Tensor, logit_scale: float) -> Tensor:
        y = empty_in_layout_of(theta, g.shape[1], theta.shape[2])
        for images, rows, (buffer,) in _blocks(theta, phi, 1):
            p = _softmax(theta[images, :, rows], phi[images], logit_scale, buffer)
            torch.bmm(g[images], p.transpose(1, 2), out=y[images, :, rows])
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.logit_scale = inputs
        ctx.save_for_backward(*tensors, output)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        theta, phi, g, y = ctx.saved_tensors
        m, scale = phi.shape[2], ctx.logit_scale
        dtheta, dphi, dg = torch.empty_like(theta), _aligned_zeros(phi), _aligned_zeros(g)
        minus_dy_y = (dy * y).sum(1).unsqueeze(2).neg_()  # (B, N, 1)
        for images, rows, (buffer, dbuffer) in _blocks(theta, phi, 2):
            p = _softmax(theta[images, :, rows], phi[images], scale, buffer)
            dy_, dlogits = dy[images, :, rows], dbuffer[..., :m]
            _add_product(dg[images], dy_, p)
            torch.baddbmm(minus_dy_y[images, rows], dy_.transpose(1, 2), g[images], out=dlogits).mul_(p)
            _add_product(dphi[images], theta[images, :, rows], dlogits, alpha=scale)
            _add_product(dtheta[images, :, rows], phi[images], dlogits.transpose(1, 2), beta=0, alpha=scale)
        return dtheta, dphi, dg, None


def _add_product(total: Tensor, a: Tensor, b: Tensor, beta: float = 1, alpha: float = 1) -> None:
    """beta * total + alpha * a b, in place; by a name that PyTorch's counter of operations knows."""
    torch.baddbmm(total, a, b, beta=beta, alpha=alpha, out=total)


def _softmax(theta: Tensor, phi: Tensor, logit_scale: float, buffer: Tensor) -> Tensor:
    """p (B, rows, M) of some rows of theta, in a buffer whose rows may be longer."""
    m = phi.shape[2]
    _add_product(buffer[..., :m], theta.transpose(1, 2), phi, beta=0, alpha=logit_scale)
    buffer[..., m:] = float("-inf")
    return torch.softmax(buffer, dim=2, out=buffer)[..., :m]


def _blocks(theta: Tensor, phi: Tensor, buffers: int) -> Iterator[tuple[slice, slice, tuple[Tensor, ...]]]:
    """Slices of images and rows, and the same `buffers` again and again for their part of the matrix.

    Together the buffers have BLOCK_BYTES at most, or else one row each.
    """
    (batch, _, n), m = theta.shape, _aligned(phi.shape[2])
    elements = BLOCK_BYTES // (buffers * theta.element_size())
    rows = min(n, max(1, elements // m))
    images = max(1, min(batch, elements // (n * m)))
    memory = theta.new_empty(buffers, images * rows * m)
    for image in range(0, batch, images):
        for row in range(0, n, rows):
            size = (min(images, batch - image), min(rows, n - row), m)
            block = (buffer[: math.prod(size)].view(size) for buffer in memory)
            yield slice(image, image + images), slice(row, row + rows), tuple(block)


def _aligned(m: int) -> int:
    """m or more, such that rows of it begin at cache lines: products are a quarter slower to write others."""
    return -(-m // CACHE_LINE) * CACHE_LINE


def _aligned_zeros(x: Tensor) -> Tensor:
    """Zeros of the shape of x (B, C, M) and in its layout."""
    if is_channels_last(x):
        return torch.zeros_like(x)
    batch, channels, m = x.shape
    return x.new_zeros(batch, channels, _aligned(m))[..., :m]
