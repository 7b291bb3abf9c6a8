"""The order of x in memory, kept by what is computed from it."""

import torch
from torch import Tensor


def empty_in_layout_of(x: Tensor, channels: int, positions: int) -> Tensor:
    """An uninitialised (B, channels, positions); its channels are last in memory if those of x are."""
    if is_channels_last(x):
        return x.new_empty(x.shape[0], positions, channels).transpose(1, 2)
    return x.new_empty(x.shape[0], channels, positions)


def weighted_sum(weights: Tensor, g: Tensor) -> Tensor:
    """sum_j weights_ji g_j, (B, D, N) in the layout of g (B, D, M).

    The weights are (B, M, N), as then the gradients of theta and g come out in the layout of these too.
    """
    if is_channels_last(g):
        return torch.bmm(weights.transpose(1, 2), g.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(g, weights)


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of x (B, C, N) are next to each other in memory, and its positions are not."""
    return x.stride(1) == 1 and x.stride(2) != 1
