"""What a non-local block computes, keeps for the gradients and holds at once, known before it is run.

Kept for the backward pass is what some gradient needs, once each:

- theta, phi and g, for the gradients of each other; x itself is kept by its neighbours anyway;
- pooled values, which phi and g need, and where in x they are from (int64, as PyTorch has it);
- y, for W_z, and W_z y for a norm with batch or group statistics. FrozenBN and no norm need nothing;
- the N x M matrix, where `cost` chose to hold it; phi^T g of dot product from its other end.
"""

from typing import NamedTuple

from detectron2.layers import FrozenBatchNorm2d

from .cost import Sizes, cheapest
from .non_local import NonLocalBlock


class Forecast(NamedTuple):
    """Multiply-adds of the convolutions and products, and bytes in float32 beyond those of x.

    In training the multiply-adds are of the forward and backward pass. What is `kept` between them is
    part of the `peak`.
    """

    multiply_adds: int
    kept: int
    peak: int


def forecast_block(block: NonLocalBlock, batch: int, size: tuple[int, ...], training: bool) -> Forecast:
    """The forecast for x (batch, C, *size).

    Args:
        training: whether there are gradients of x and of all parameters.
    """
    sizes, n_embedded = _sizes(block, batch, size)
    way, work = cheapest(block.pairwise, sizes, training)
    b, n, m, d, d_g = sizes
    channels, is_embedded = block.in_channels, block.pairwise != "gaussian"
    convolved = n + n_embedded + (n + n_embedded if is_embedded else 0)  # by W_z, W_g, W_theta, W_phi
    multiply_adds = b * channels * d_g * convolved
    if block.pairwise == "concatenation":
        multiply_adds += b * d * (n + m)  # a and b
    copies = 2 if way == "matrix" and "gaussian" in block.pairwise else 1  # logits and softmax
    y, workspace, x_bytes = 4 * b * n * d_g, copies * work.held, 4 * b * n * channels
    if not training:
        is_phi_new = is_embedded or block.subsample != "none"
        operands = 4 * b * (n * d * is_embedded + m * d * is_phi_new + m * d_g)
        peak = max(operands + y + workspace, y + 2 * x_bytes)  # at the operation, or at W_z and z
        return Forecast(multiply_adds + work.multiply_adds, 0, peak)
    kept = _kept(block, sizes, n_embedded, way)
    # With z and its gradient: two more of that size at the convolutions, or those of y, theta, phi and g.
    gradients = 4 * b * (n * (d + d_g) + m * (d + d_g))
    peak = kept + max(4 * x_bytes, (1 if _keeps_norm_input(block) else 2) * x_bytes + gradients + workspace)
    return Forecast(3 * multiply_adds + work.multiply_adds, kept, peak)


def _sizes(block: NonLocalBlock, batch: int, size: tuple[int, ...]) -> tuple[Sizes, int]:
    """The sizes, and the positions at which phi and g are convolved."""
    n = m = 1
    for axis, side in enumerate(size):
        is_pooled = block.subsample != "none" and block.dim > 1 and axis >= block.dim - 2
        n *= side
        m *= max(1, side // 2) if is_pooled else side
    d = block.in_channels if block.pairwise == "gaussian" else block.inner_channels
    return Sizes(batch, n, m, d, block.inner_channels), m if block.subsample == "input" else n


def _kept(block: NonLocalBlock, sizes: Sizes, n_embedded: int, way: str) -> int:
    """Bytes kept for the backward pass; 4 a value, 8 a place that a pooled value is from."""
    b, n, m, d, d_g = sizes
    channels, is_embedded = block.in_channels, block.pairwise != "gaussian"
    kept = 4 * n * d_g + 4 * m * d_g  # y and g
    if is_embedded:
        kept += 4 * n * d + 4 * m * d
    if block.dim > 1 and block.subsample == "input":
        kept += 12 * m * channels
    elif block.dim > 1 and block.subsample == "embedding":
        kept += 4 * n * d_g + 8 * m * d_g + (4 * n * d + 8 * m * d if is_embedded else 12 * m * d)
    if _keeps_norm_input(block):
        kept += 4 * n * channels
    kept += {"matrix": 4 * n * m, "channels": 4 * d * d_g, "sorted": 4 * (n + m)}.get(way, 0)
    return b * kept


def _keeps_norm_input(block: NonLocalBlock) -> bool:
    return not (block.out.norm is None or isinstance(block.out.norm, FrozenBatchNorm2d))
