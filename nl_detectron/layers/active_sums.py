"""Concatenation (Eq. 5) without its N x M matrix: O(log M) to place each i, then O(N + M) a channel.

    y_i = sum over the active j, those with b_j > -a_i, of (a_i + b_j) g_j

With b in descending order the active j come first, so that both sums over them, of g_j and of b_j g_j, are
prefix sums. These are in float64: a_i times the one and the other may be large and nearly cancel. The letters
and shapes are those of `pairwise`.
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
    a: Tensor  # (B, 1, N), float64
    b: Tensor  # (B, 1, M), in order, float64


def sort_active(a: Tensor, b: Tensor) -> Order:
    """The order for a (B, N) and b (B, M)."""
    b, order = b.sort(dim=1, descending=True)
    active = torch.searchsorted(-b, a).unsqueeze(1)  # of the ascending -b, those below a
    last = (active - 1).clamp(min=0)
    return Order(order, last, active == 0, a.unsqueeze(1).double(), b.unsqueeze(1).double())


def active_sums(order: Order, g: Tensor) -> tuple[Tensor, Tensor]:
    """Of g (B, D, M), the sums over the active j of g_j and (a_i + b_j) g_j, both (B, D, N) in float64."""
    last = order.last.expand(-1, g.shape[1], -1)
    g = g.gather(2, order.order.unsqueeze(1).expand_as(g)).double()
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
            da += (dy[:, channels] * active_sums(order_of_j, g[:, channels])[0]).sum(1).to(da.dtype)
            active_dy, dg[:, channels] = active_sums(order_of_i, dy[:, channels])
            db += (g[:, channels] * active_dy).sum(1).to(db.dtype)
        return da, db, dg


def _slabs(y: Tensor) -> list[slice]:
    """Slices of the channels of y (B, D, N): five float64 tensors of such a slice fit BLOCK_BYTES."""
    batch, channels, n = y.shape
    step = max(1, BLOCK_BYTES // max(1, 40 * batch * n))
    return [slice(first, first + step) for first in range(0, channels, step)]
