"""Rows of the N x M matrix: what a position attends to, and how far that depends on the position.

Letters are those of `layers.pairwise`; K is the number of chosen positions i, S' the sizes after subsampling.
"""

import torch
from torch import Tensor

from nl_detectron.layers import NonLocalBlock, at_least_float32

VALUES_AT_A_TIME = 2**22  # values of the matrix that are held at a time


@torch.no_grad()
def attention_rows(block: NonLocalBlock, x: Tensor, positions: Tensor) -> Tensor:
    """f(x_i, x_j) / C(x) of Eq. 1 for chosen positions i and all j, in float32 or better.

    Args:
        x: (B, C, *S), the block's input.
        positions: (K,), integers from 0 to N - 1, row by row as in `x.flatten(2)`.

    Returns:
        (B, K, *S'). A row of the Gaussian forms sums to 1; the dot product has either sign; concatenation is
        0 or more.
    """
    theta, phi, size = _embed(block, x)
    return _rows(block, theta[..., positions], phi).unflatten(2, size)


@torch.no_grad()
def query_dependence(block: NonLocalBlock, x: Tensor) -> float:
    """How far the rows differ: the average cosine distance of Section 3.2 of GCNet (Cao et al., 2019),

        1/N^2 sum_i sum_i' (1 - cos(row_i, row_i')) / 2,

    averaged over the batch. 0 if all positions attend alike, near 1/2 if no two look at the same; above that
    only with signed weights. Rows of zeros, which a ReLU can leave, are like each other and unlike others.

    Args:
        x: (B, C, *S), the block's input; B and N at least 1.
    """
    theta, phi, _ = _embed(block, x)
    batch, n, m = theta.shape[0], theta.shape[2], phi.shape[2]
    total, zeros = phi.new_zeros(batch, m, dtype=torch.float64), phi.new_zeros(batch)
    for some in theta.split(max(1, VALUES_AT_A_TIME // (batch * m)), dim=2):
        rows = _rows(block, some, phi)  # (B, rows, M)
        total += torch.nn.functional.normalize(rows, dim=2, eps=torch.finfo(rows.dtype).tiny).sum(1)
        zeros += (rows == 0).all(2).sum(1)
    # The sum of the cosines of all pairs of unit vectors is the square of their sum: no pair is gone through.
    cosines = (total.square().sum(1) + zeros.square()) / n**2
    return ((1 - cosines) / 2).clamp(min=0).mean().item()


def _embed(block: NonLocalBlock, x: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """theta (B, d, N) and phi (B, d, M) in float32 or better, and S'."""
    theta, phi, _ = block.embed(x)
    size = phi.shape[2:]
    return at_least_float32(theta.flatten(2)), at_least_float32(phi.flatten(2)), size


def _rows(block: NonLocalBlock, theta: Tensor, phi: Tensor) -> Tensor:
    """(B, K, M) for theta (B, d, K) at the chosen positions: Eq. 2 to 5 to the letter."""
    if block.pairwise == "concatenation":
        w_theta, w_phi = block.w_f.weight.to(theta.dtype).flatten().chunk(2)
        a, b = w_theta @ theta, w_phi @ phi  # (B, K), (B, M)
        return (a.unsqueeze(2) + b.unsqueeze(1)).relu() / phi.shape[2]
    products = theta.transpose(1, 2) @ phi
    if block.pairwise == "dot_product":
        return products / phi.shape[2]
    return (products * block.logit_scale).softmax(dim=2)
