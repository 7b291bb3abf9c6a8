"""The operation alone, given theta, phi and g: ours, and the usual sequence of operations.

The usual sequences stand in for public implementations. They are written from the equations in the
leanest form that those have: in place where that is possible.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from nl_detectron.layers import cost, pairwise
from nl_detectron.layers.attention import fused_attention

from .measure import Ceilings, Result, compare

Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# Images or RoIs B, positions N and M, inner channels D; res4 has 50 x 84 positions at 800 x 1333 pixels.
SHAPES = {
    "res4": (1, 4200, 1050, 512),
    "res4, no subsampling": (1, 4200, 4200, 512),
    "res3": (1, 100 * 167, 50 * 83, 256),
    "res4 of 1200 x 2000 (TTA)": (1, 75 * 125, 37 * 62, 512),
    "keypoint head, 1 RoI": (1, 196, 49, 256),
    "keypoint head, 64 RoIs": (64, 196, 49, 256),
    "keypoint head, 64 RoIs, no subsampling": (64, 196, 196, 256),
    "keypoint head, 512 RoIs": (512, 196, 49, 256),
}
GROWTH = (1024, 2048, 4096, 8192, 16384)
LARGEST_USUAL = 4096  # of the growth, as the usual matrices of the largest size take 3 GB
LARGEST_SOFTMAX = 8192  # which takes a quarter of a minute on two cores at the largest


def usual_softmax(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 2 and 3: logits, softmax, weighted sum, and the channels brought first again."""
    f = torch.matmul(theta.permute(0, 2, 1), phi)
    f /= theta.shape[1] ** 0.5
    f = f.softmax(dim=-1)
    return _usual_sum(f, g)


def usual_dot_product(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 4, likewise."""
    f = torch.matmul(theta.permute(0, 2, 1), phi)
    f /= f.shape[-1]
    return _usual_sum(f, g)


def usual_concatenation(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 5 with a_i + b_j broadcast; public implementations concatenate pairs, 2d times as large."""
    w_theta, w_phi = w_f.chunk(2)
    f = torch.relu((w_theta @ theta).unsqueeze(2) + (w_phi @ phi).unsqueeze(1))
    f = f / f.shape[-1]  # in place, ReLU would have no gradient
    return _usual_sum(f, g)


def _usual_sum(weights: Tensor, g: Tensor) -> Tensor:
    return torch.matmul(weights, g.permute(0, 2, 1)).permute(0, 2, 1).contiguous()


def our_softmax(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    return pairwise.softmax_attention(theta, phi, g, theta.shape[1] ** -0.5)


def fused_softmax(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """PyTorch's fused attention, from and to the layout of the usual sequence."""
    return fused_attention(theta, phi, g, theta.shape[1] ** -0.5).contiguous()


def our_dot_product(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    return pairwise.dot_product(theta, phi, g)


OPERATIONS: dict[str, dict[str, Operation]] = {
    "gaussian": {"ours": our_softmax, "usual": usual_softmax},
    "embedded_gaussian": {"ours": our_softmax, "usual": usual_softmax, "fused": fused_softmax},
    "dot_product": {"ours": our_dot_product, "usual": usual_dot_product},
    "concatenation": {"ours": pairwise.concatenation, "usual": usual_concatenation},
}


class Case(NamedTuple):
    """One pass of the operation at one size. The floor is what no machine with these ceilings can go below on
    our way: its multiply-adds and its bytes, whichever take longer; and y and the gradients alone."""

    function: str
    shape: str
    sizes: cost.Sizes
    way: str
    backward: bool
    results: dict[str, Result]
    floor: Result
    errors: dict[str, float]  # of y against float64, relative to its largest value


def run_case(
    function: str, shape: str, device: torch.device, dtype: torch.dtype, ceilings: Ceilings, seconds: float
) -> Iterator[Case]:
    """Forward, then forward and backward."""
    b, n, m, d_g = SHAPES[shape]
    sizes = cost.Sizes(b, n, m, 2 * d_g if function == "gaussian" else d_g, d_g)
    inputs = make_inputs(sizes, device, dtype)
    for backward in (False, True):
        errors = _errors(function, inputs, backward)
        way, work = cost.cheapest(function, sizes, backward)
        if "gaussian" in function and device.type != "cpu" and not backward:
            way = "fused"
        results = compare(_contestants(function, inputs, backward), device, seconds)
        floor = _floor(work, sizes, dtype.itemsize, backward, ceilings)
        yield Case(function, shape, sizes, way, backward, results, floor, errors)


def growth_sizes(function: str) -> list[int]:
    """N = M, as large as is measured in little time."""
    return [n for n in GROWTH if function != "embedded_gaussian" or n <= LARGEST_SOFTMAX]


def run_growth(
    function: str, n: int, device: torch.device, dtype: torch.dtype, seconds: float
) -> dict[str, dict[str, Result]]:
    """At N = M = n, with 512 channels: of each pass the results of the contestants."""
    inputs = make_inputs(cost.Sizes(1, n, n, 512, 512), device, dtype)
    names = ("ours", "usual") if n <= LARGEST_USUAL else ("ours",)
    results = {}
    for name, backward in (("forward", False), ("forward+backward", True)):
        contestants = _contestants(function, inputs, backward)
        results[name] = compare({who: contestants[who] for who in names}, device, seconds)
    return results


def exponent(values: dict[int, float]) -> float:
    """k of the power law c n^k that fits best, on logarithmic axes."""
    return float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])


def make_inputs(sizes: cost.Sizes, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """theta, phi, g and w_f of unit variance, and such that a_i + b_j has it too."""
    b, n, m, d, d_g = sizes
    shapes = ((b, d, n), (b, d, m), (b, d_g, m), (2 * d,))
    *features, w_f = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
    return [*features, w_f / (2 * d) ** 0.5]


def _contestants(function: str, inputs: list[Tensor], backward: bool) -> dict[str, Callable[[], object]]:
    operations = OPERATIONS[function]
    if not backward:
        return {name: torch.no_grad()(lambda op=op: op(*inputs)) for name, op in operations.items()}
    theta, _, g, _ = inputs
    dy = torch.randn(theta.shape[0], g.shape[1], theta.shape[2], device=g.device, dtype=g.dtype)

    def run(op: Operation) -> None:
        op(*(t.detach().requires_grad_() for t in inputs)).to(dy.dtype).backward(dy)

    return {name: lambda op=op: run(op) for name, op in operations.items()}


def _errors(function: str, inputs: list[Tensor], backward: bool) -> dict[str, float]:
    """At some of the positions, each of which has its own sum over all j."""
    inputs = [t.detach().requires_grad_(backward) for t in inputs]  # which the way depends on
    theta, *others = inputs
    some = torch.randperm(theta.shape[2], device=theta.device)[:500]
    with torch.no_grad():
        expected = OPERATIONS[function]["usual"](theta[..., some].double(), *(t.double() for t in others))
    results = {name: op(*inputs).detach()[..., some] for name, op in OPERATIONS[function].items()}
    largest = expected.abs().max()
    return {name: ((y.double() - expected).abs().max() / largest).item() for name, y in results.items()}


def _floor(work: cost.Cost, sizes: cost.Sizes, itemsize: int, backward: bool, ceilings: Ceilings) -> Result:
    b, n, m, d, d_g = sizes
    y, operands = b * n * d_g * itemsize, b * (n * d + m * (d + d_g)) * itemsize
    moved = (3 if backward else 1) * (y + operands) + work.moved
    seconds = max(work.multiply_adds / ceilings.multiply_adds, moved / ceilings.bytes)
    return Result(seconds, y + operands if backward else y)
