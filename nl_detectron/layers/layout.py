"""The order of x in memory, kept by what is computed from it."""

import torch
from torch import Tensor


def empty_in_layout_of(x: Tensor, channels: int, positions: int) -> Tensor:
    """An uninitialised (B, channels, positions), with the channels last in memory if x (B, _, _) has them so."""
    if is_channels_last(x):
        return x.new_empty(x.shape[0], positions, channels).transpose(1, 2)
    return x.new_empty(x.shape[0], channels, positions)


def weighted_sum(weights: Tensor, g: Tensor) -> Tensor:
    """sum_j weights_ij g_j, (B, D, N) in the layout of g, of weights (B, N, M) and g (B, D, M)."""
    if is_channels_last(g):
        return torch.bmm(weights, g.transpose(1, 2)).transpose(1, 2)
    return torch.bmm(g, weights.transpose(1, 2))


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of x (B, C, N) are next to each other in memory, and its positions are not."""
    return x.stride(1) == 1 and x.stride(2) != 1
