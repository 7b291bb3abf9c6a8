"""The non-local block written from Eq. 1-6 as slow loops over positions, in float64.

It shares nothing with the package but the names of the parameters.
"""

import itertools
import math

import torch
from torch import Tensor


def reference_block(
    x: Tensor, state: dict[str, Tensor], *, pairwise: str, subsample: str, scale: bool
) -> Tensor:
    """z of Eq. 6 for x (B, C, *S) and the state dict of a block in eval mode.

    `state` may have the entries of a batch norm after W_z, or the bias of W_z.
    """
    state = {name: tensor.double() for name, tensor in state.items()}
    z = torch.empty_like(x, dtype=torch.float64)
    for b in range(x.shape[0]):
        z[b] = _reference_image(x[b].double(), state, pairwise, subsample, scale)
    return z


def reference_rows(
    x: Tensor, state: dict[str, Tensor], *, pairwise: str, subsample: str, scale: bool
) -> Tensor:
    """f(x_i, x_j) / C(x) of Eq. 1 for all i and j (B, N, M), as `reference_block` takes its arguments."""
    state = {name: tensor.double() for name, tensor in state.items()}
    rows = []
    for image in x.double():
        theta, phi, _ = _embeddings(image, state, pairwise, subsample)
        rows.append(
            torch.stack(
                [_row(theta[(slice(None), *i)], phi, state, pairwise, scale) for i in _positions(image)]
            )
        )
    return torch.stack(rows)


def _reference_image(
    x: Tensor, state: dict[str, Tensor], pairwise: str, subsample: str, scale: bool
) -> Tensor:
    theta, phi, g = _embeddings(x, state, pairwise, subsample)
    z = torch.empty_like(x)
    positions_j = list(_positions(phi))
    for i in _positions(x):
        row = _row(theta[(slice(None), *i)], phi, state, pairwise, scale)
        y_i = sum(f_ij * g[(slice(None), *j)] for f_ij, j in zip(row, positions_j, strict=True))  # Eq. 1
        z[(slice(None), *i)] = _output(y_i, state) + x[(slice(None), *i)]  # Eq. 6
    return z


def _embeddings(
    x: Tensor, state: dict[str, Tensor], pairwise: str, subsample: str
) -> tuple[Tensor, Tensor, Tensor]:
    x_hat = _pool(x) if subsample == "input" else x
    g = _embed(x_hat, state, "g")
    embedded = pairwise != "gaussian"
    theta = _embed(x, state, "theta") if embedded else x
    phi = _embed(x_hat, state, "phi") if embedded else x_hat
    if subsample == "embedding":
        phi, g = _pool(phi), _pool(g)
    return theta, phi, g


def _row(theta_i: Tensor, phi: Tensor, state: dict[str, Tensor], pairwise: str, scale: bool) -> Tensor:
    """f(x_i, x_j) / C(x) for all j (M,)."""
    d = state["g.weight"].shape[0]
    f = []
    for j in _positions(phi):
        phi_j = phi[(slice(None), *j)]
        if pairwise in ("gaussian", "embedded_gaussian"):  # Eq. 2, Eq. 3
            logit = torch.dot(theta_i, phi_j).item()
            f.append(math.exp(logit / math.sqrt(d) if scale else logit))
        elif pairwise == "dot_product":  # Eq. 4
            f.append(torch.dot(theta_i, phi_j).item())
        else:  # Eq. 5
            pair = torch.cat([theta_i, phi_j])
            f.append(max(0.0, torch.dot(state["w_f.weight"].flatten(), pair).item()))
    normalizer = sum(f) if "gaussian" in pairwise else len(f)  # C(x)
    return torch.tensor(f, dtype=torch.float64) / normalizer


def _positions(x: Tensor) -> itertools.product:
    return itertools.product(*(range(side) for side in x.shape[1:]))


def _embed(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """A 1x1 convolution, position by position."""
    weight = state[f"{name}.weight"].flatten(1)
    out = torch.empty(weight.shape[0], *x.shape[1:], dtype=x.dtype)
    for i in _positions(x):
        out[(slice(None), *i)] = weight @ x[(slice(None), *i)] + state[f"{name}.bias"]
    return out


def _output(y_i: Tensor, state: dict[str, Tensor]) -> Tensor:
    """W_z y_i and its norm, which in eval mode is an affine map of each channel."""
    out = state["out.weight"].flatten(1) @ y_i
    if "out.bias" in state:
        out = out + state["out.bias"]
    if "out.norm.running_mean" in state:
        deviation = torch.sqrt(state["out.norm.running_var"] + 1e-5)
        out = (out - state["out.norm.running_mean"]) / deviation
        out = out * state["out.norm.weight"] + state["out.norm.bias"]
    return out


def _pool(x: Tensor) -> Tensor:
    """The maximum of every 2x2 window over height and width; time, and a side of 1, stay."""
    if x.dim() == 2:
        return x
    height, width = x.shape[-2:]
    step_y, step_x = min(height, 2), min(width, 2)
    rows = []
    for top in range(0, height - step_y + 1, step_y):
        row = [
            x[..., top : top + step_y, left : left + step_x].amax(dim=(-2, -1))
            for left in range(0, width - step_x + 1, step_x)
        ]
        rows.append(torch.stack(row, dim=-1))
    return torch.stack(rows, dim=-2)
