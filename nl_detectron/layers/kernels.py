"""Exact kernels for Eq. 1 without its N x M matrix, and which kernel is used for which sizes.

Letters and shapes are those of `pairwise.py`.

- fused: PyTorch's fused attention with one head, for the two Gaussian forms.
- slabs: the matrix, a part of its rows at a time, on GPUs.
- associative: theta (phi^T g) for the dot product; two lines in `pairwise.py`.
- sorted: for concatenation. ReLU(a_i + b_j) is a_i + b_j for the "active" j, those with b_j > -a_i, else 0.
  With b in descending order the active j come first, so that the sums over them of g_j and b_j g_j
  are prefix sums: O(log M) to find how many are active for each i, then O(N + M) a channel.

All differ from the matrix by rounding only, with one exception: at logits of 1e9, the gradients of fused
attention are wrong, because PyTorch recomputes the softmax as exp(logit - log_sum_exp).

On GPUs, products are in the precision of the features, and their sums in float32, as tensor cores do it. On
CPUs all is in float32 or better: few CPUs multiply half precision, and on others that is 20 times slower.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

# The largest N x M matrix that is built on a CPU. Up to here training is no slower with it than with fused
# attention, which computes the logits once more for the gradients.
MATRIX_BYTES = 80 * 2**20

# The part of a GPU's memory that the matrix may take and keep for the gradients, in so many slabs.
MEMORY_SHARE = 1 / 16
SLABS = 4

# Flash attention takes up to this many channels. It is the only fused kernel that is faster than the matrix:
# the other one takes 1.1 to 18 times as long, forward and backward (docs/performance.md).
FLASH_CHANNELS = 256

# Without cuDNN's, which plans anew for each shape: nearly every image has its own.
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]

# What the sorted sums may hold at a time: five float64 tensors of some of the channels.
SLAB_BYTES = 8 * 2**20

# Sorting moves as much memory for one value of g or y as a product with the matrix does for this many pairs.
PAIRS_PER_SORTED_VALUE = 150


def select_kernel(form: str, theta: Tensor, phi: Tensor, g: Tensor) -> str:
    """The kernel to use: "matrix", or else "fused", "associative", "sorted" or "slabs".

    A scripted, traced or compiled graph serves all sizes, so its memory has to grow with N + M. ONNX has
    neither fused attention nor a search in sorted values: its graphs hold the matrix.

    Args:
        form: "softmax", "dot_product" or "concatenation".
    """
    alternative = {"softmax": "fused", "dot_product": "associative", "concatenation": "sorted"}[form]
    if torch.jit.is_scripting():
        return alternative
    else:
        if torch.onnx.is_in_onnx_export() and form != "dot_product":
            return "matrix"
        if is_graph_capture():
            return alternative
        b, n, m, d, d_g = theta.shape[0], theta.shape[2], phi.shape[2], theta.shape[1], g.shape[1]
        is_cheaper = True
        if form == "dot_product":
            is_cheaper = n * m * (d + d_g) <= (n + m) * d * d_g  # multiply-adds
        elif theta.is_cuda:
            alternative = "fused" if form == "softmax" and _has_flash(theta) else "slabs"
        elif form == "concatenation":
            is_cheaper = n * m <= PAIRS_PER_SORTED_VALUE * (n + m)
        fits = theta.element_size() * b * n * m <= matrix_budget(form, theta, g)
        return "matrix" if is_cheaper and fits else alternative


def matrix_budget(form: str, theta: Tensor, g: Tensor) -> int:
    """How many bytes the matrix may have.

    On CPUs fused attention pads g to d channels, and does that much more work; the more channels there are,
    the less the memory of the matrix weighs against that.
    """
    d, d_g = theta.shape[1], g.shape[1]
    if theta.is_cuda and not (form == "softmax" and _has_flash(theta)):
        return int(MEMORY_SHARE * torch.cuda.get_device_properties(theta.device).total_memory)
    if form != "softmax" or d <= d_g or theta.is_cuda:
        return MATRIX_BYTES
    return MATRIX_BYTES * d // d_g * (2 if d >= 1024 else 1)


def _has_flash(theta: Tensor) -> bool:
    is_new = torch.cuda.get_device_capability(theta.device) >= (8, 0)
    return is_new and theta.element_size() == 2 and theta.shape[1] <= FLASH_CHANNELS


def is_graph_capture() -> bool:
    """Whether this call is being recorded as a graph, which inputs of other sizes will go through as well."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def fused_attention(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    """The softmax forms by PyTorch's kernel, y (B, D, N)."""
    padding = max(0, theta.shape[1] - g.shape[1])
    value = F.pad(g, (0, 0, 0, padding)) if padding else g  # there is a kernel only for d = D
    if torch.jit.is_scripting():
        y = _attend(theta, phi, value, scale)
    else:
        if is_graph_capture():
            y = _attend(theta, phi, value, scale)
        else:
            with sdpa_kernel(BACKENDS):
                y = _attend(theta, phi, value, scale)
            y = _DifferentiableTwice.apply(y, theta, phi, value, scale)
    return y[:, : g.shape[1]]


def _attend(theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
    query = theta.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, N, d)
    key = phi.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, M, d)
    value = g.transpose(1, 2).unsqueeze(1).contiguous()  # (B, 1, M, d)
    y = F.scaled_dot_product_attention(query, key, value, scale=scale)  # (B, 1, N, d)
    return y.squeeze(1).transpose(1, 2)  # (B, d, N)


def in_slabs(attend: Callable[[Tensor], Tensor], rows: Tensor, m: int) -> Tensor:
    """y (B, D, N) of `attend`, which takes some of N rows (B, d, N) of the matrix at a time.

    SLABS slabs of the matrix are kept for the gradients; the others are computed again.
    """
    budget = int(MEMORY_SHARE * torch.cuda.get_device_properties(rows.device).total_memory)
    size = budget // SLABS // (rows.element_size() * rows.shape[0] * m)
    size = max(8, size // 8 * 8)  # keeps the slabs aligned as tensor cores want them
    y = []
    for k, slab in enumerate(rows.split(size, dim=2)):
        again = partial(checkpoint, attend, use_reentrant=False, preserve_rng_state=False)
        y.append(attend(slab) if k < SLABS else again(slab))
    return torch.cat(y, dim=2)


class _DifferentiableTwice(torch.autograd.Function):
    """The identity of y. In a double backward its gradients come from the matrix, because PyTorch's fused
    backward has no derivative of its own.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, theta: Tensor, phi: Tensor, g: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(theta, phi, g)
        ctx.scale = scale
        return y.view_as(y)

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return dy, None, None, None, None
        with sdpa_kernel(SDPBackend.MATH):
            y = _attend(*ctx.saved_tensors, ctx.scale)
        wanted = [t for t in ctx.saved_tensors if t.requires_grad]
        gradients = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
        return None, *(next(gradients) if t.requires_grad else None for t in ctx.saved_tensors), None


def sorted_concatenation(a: Tensor, b: Tensor, g: Tensor) -> Tensor:
    """sum_j ReLU(a_i + b_j) g_j, y (B, D, N) of a (B, N), b (B, M) and g (B, D, M).

    Where a_i + b_j is 0 the gradient is 0, as PyTorch's ReLU has it. Not twice differentiable.
    """
    if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript would compile both conditions
        if not is_graph_capture():
            return _SortedConcatenation.apply(a, b, g)
    return active_sums(sort_active(a, b), g)[1].to(g.dtype)


class ActiveOrder(NamedTuple):
    """b in descending order, and how many of the first b_j are active for every a_i."""

    order: Tensor  # (B, M)
    last: Tensor  # (B, 1, N), the last active place, 0 if there is none
    none: Tensor  # (B, 1, N), whether there is none
    a: Tensor  # (B, 1, N), float64
    b: Tensor  # (B, 1, M), sorted, float64


def sort_active(a: Tensor, b: Tensor) -> ActiveOrder:
    """The order for a (B, N) and b (B, M)."""
    b, order = b.sort(dim=1, descending=True)
    active = torch.searchsorted(-b, a).unsqueeze(1)  # of the ascending -b, those below a
    last = (active - 1).clamp(min=0)
    return ActiveOrder(order, last, active == 0, a.unsqueeze(1).double(), b.unsqueeze(1).double())


def active_sums(order: ActiveOrder, g: Tensor) -> tuple[Tensor, Tensor]:
    """For g (B, D, M), the sums over the active j of g_j and of (a_i + b_j) g_j, both (B, D, N).

    They are in float64, because a_i times the first and the sum of b_j g_j may be large and nearly cancel.
    """
    last = order.last.expand(-1, g.shape[1], -1)  # (B, D, N)
    g = g.gather(2, order.order.unsqueeze(1).expand_as(g)).double()  # (B, D, M), sorted
    weighted = (g * order.b).cumsum_(2).gather(2, last).masked_fill_(order.none, 0.0)  # (B, D, N)
    plain = g.cumsum(2).gather(2, last).masked_fill_(order.none, 0.0)  # (B, D, N)
    return plain, weighted.addcmul_(plain, order.a)


class _SortedConcatenation(torch.autograd.Function):
    """Its gradients are sums over active pairs too; that of g is the operation with i and j exchanged."""

    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        ctx.save_for_backward(a, b, g)
        y = g.new_empty(*g.shape[:2], a.shape[1])
        order = sort_active(a, b)
        for channels in _slabs(y):
            y[:, channels] = active_sums(order, g[:, channels])[1]
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor, ...]:
        # once_differentiable would let a constant dy through, and give wrong values
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Concatenation over this many pairs is computed by sorting, which has no double backward."
            )
        a, b, g = ctx.saved_tensors
        da, db, dg = torch.zeros_like(a), torch.zeros_like(b), torch.empty_like(g)
        order_of_j, order_of_i = sort_active(a, b), sort_active(b, a)
        for channels in _slabs(dy):
            da += (dy[:, channels] * active_sums(order_of_j, g[:, channels])[0]).sum(1).to(da.dtype)
            active_dy, dg[:, channels] = active_sums(order_of_i, dy[:, channels])
            db += (g[:, channels] * active_dy).sum(1).to(db.dtype)
        return da, db, dg


def _slabs(y: Tensor) -> list[slice]:
    """Slices of the channels of y (B, D, N), each small enough for SLAB_BYTES."""
    batch, channels, n = y.shape
    step = max(1, SLAB_BYTES // max(1, 40 * batch * n))
    return [slice(first, first + step) for first in range(0, channels, step)]
