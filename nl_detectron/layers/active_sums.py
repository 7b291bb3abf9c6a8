"""Concatenation (Eq. 5) without its N x M matrix: O(log M) to place each i, then O(N + M) a channel.

    y_i = sum over the active j, those with b_j > -a_i, of (a_i + b_j) g_j

With b in descending order the active j come first, so that both sums over them, of g_j and of b_j g_j, are
prefix sums. To lose no digits where few j are active, both a_i and b_j are taken relative to the largest b:
(a_i + b_1) and (b_j - b_1). The letters and shapes are those of `pairwise`.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from .cost import BLOCK_BYTES
from .layout import empty_in_layout_of


class Order(NamedTuple):
    """b in descending order, and how many of the first b_j are active for every a_i."""

    order: Tensor  # (B, M)
    last: Tensor  # (B, 1, N), the last active place, 0 if there is none
    none: Tensor  # (B, 1, N), whether there is none
    a: Tensor  # (B, 1, N), a_i + b_1
    b: Tensor  # (B, 1, M), b_j - b_1 in order


def sort_active(a: Tensor, b: Tensor) -> Order:
    """The order for a (B, N) and b (B, M)."""
    b, order = b.sort(dim=1, descending=True)
    active = torch.searchsorted(-b, a).unsqueeze(1)  # of the ascending -b, those below a
    top = b[:, :1]
    return Order(
        order, (active - 1).clamp(min=0), active == 0, (a + top).unsqueeze(1), (b - top).unsqueeze(1)
    )


def active_sums(order: Order, g: Tensor) -> tuple[Tensor, Tensor]:
    """Over the active j, the sums of g_j and of (a_i + b_j) g_j, both (B, D, N), of g (B, D, M)."""
    last = order.last.expand(-1, g.shape[1], -1)
    g = g.gather(2, order.order.unsqueeze(1).expand_as(g))
    weighted = (g * order.b).cumsum_(2).gather(2, last).masked_fill_(order.none, 0.0)
    plain = g.cumsum(2).gather(2, last).masked_fill_(order.none, 0.0)
    return plain, weighted.addcmul_(plain, order.a)


def sorted_concatenation(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """sum_j ReLU(a_i + b_j) g_j, (B, D, N) of a (B, N), b (B, M) and g (B, D, M), in float32 or float64.

    Where a_i + b_j is 0 the gradient is 0, as PyTorch's ReLU has it. Not twice differentiable.
    """
    return _SortedConcatenation.apply(a, b, g)


class _SortedConcatenation(torch.autograd.Function):
    """Its gradients are sums over active pairs too; that of g is the operation with i and j exchanged."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        y = empty_in_layout_of(g, g.shape[1], a.shape[1])
        order = sort_active(a, b)
        for channels in _slabs(y):
            y[:, channels] = active_sums(order, g[:, channels])[1]
        return y

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, ...]:
        a, b, g = ctx.saved_tensors
        da, db, dg = torch.zeros_like(a), torch.zeros_like(b), torch.empty_like(g)
        order_of_j, order_of_i = sort_active(a, b), sort_active(b, a)
        for channels in _slabs(dy):
            da += (dy[:, channels] * active_sums(order_of_j, g[:, channels])[0]).sum(1)
            active_dy, dg[:, channels] = active_sums(order_of_i, dy[:, channels])
            db += (g[:, channels] * active_dy).sum(1)
        return da, db, dg


def _slabs(y: Tensor) -> list[slice]:
    """Slices of the channels of y (B, D, N), so that what `active_sums` makes of them fits BLOCK_BYTES."""
    batch, channels, n = y.shape
    step = max(1, BLOCK_BYTES // max(1, 5 * batch * n * y.element_size()))
    return [slice(first, first + step) for first in range(0, channels, step)]
