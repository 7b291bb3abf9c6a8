"""The operation alone, given theta, phi and g: ours, and the usual sequence of operations.

The usual sequences stand in for public implementations. They are written from the equations in the leanest
form that those have: in place where that is possible.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nl_detectron.layers import kernels, pairwise

from .measure import PASSES, Result, Run, compare, comparison, table

Operation = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
BAR = 1.05  # for our time, relative to the usual


def usual_softmax(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 2 and 3: logits, softmax, weighted sum, and the channels brought first again."""
    f = torch.matmul(theta.permute(0, 2, 1), phi)
    f /= theta.shape[1] ** 0.5
    return _usual_sum(f.softmax(dim=-1), g)


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


def our_dot_product(theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    return pairwise.dot_product(theta, phi, g)


# Ours, and the usual sequence.
OPERATIONS: dict[str, tuple[Operation, Operation]] = {
    "gaussian": (our_softmax, usual_softmax),
    "embedded_gaussian": (our_softmax, usual_softmax),
    "dot_product": (our_dot_product, usual_dot_product),
    "concatenation": (pairwise.concatenation, usual_concatenation),
}
# Images or RoIs B, positions N and M, channels D; res4 has 50 x 84 positions at 800 x 1333 pixels.
SHAPES = {
    "res4": (1, 4200, 1050, 512),
    "res4, no subsampling": (1, 4200, 4200, 512),
    "res3": (1, 100 * 167, 50 * 83, 256),
    "res4 of 1200 x 2000 (TTA)": (1, 75 * 125, 37 * 62, 512),
    "keypoint head, 1 RoI": (1, 196, 49, 256),
    "keypoint head, 64 RoIs": (64, 196, 49, 256),
    "keypoint head, 64 RoIs, no subsampling": (64, 196, 196, 256),
    "keypoint head, 512 RoIs": (512, 196, 49, 256),
    **{f"N = M = {n}": (1, n, n, 512) for n in (1024, 2048, 4096, 8192)},
}


@dataclass
class Case:
    """One pass of the operation at one size.

    Attributes:
        shape: B, N, M and D.
        budget: bytes that our largest tensor may have: those of a matrix, or of an operand in float32.
    """

    function: str
    positions: str
    shape: tuple[int, int, int, int]
    kernel: str
    backward: bool
    ours: Result
    usual: Result
    budget: int

    def __str__(self) -> str:
        return f"{self.function}, {self.positions}, {PASSES[self.backward]}"

    @property
    def ratio(self) -> float:
        return self.ours.seconds / self.usual.seconds

    @property
    def used(self) -> float:
        return self.ours.largest / self.budget


def run_case(function: str, positions: str, shape: Sequence[int], seconds: float) -> Iterator[Case]:
    """Forward, then forward and backward. A time above the bar is measured again, with more turns.

    Args:
        shape: B, N, M and D.
    """
    like = torch.empty(0)
    b, n, m, channels = shape
    d = 2 * channels if function == "gaussian" else channels
    inputs = make_inputs(b, n, m, d, channels, like)
    form = "softmax" if "gaussian" in function else function
    kernel = kernels.select_kernel(form, *inputs[:3])
    budget = max(kernels.matrix_budget(form, inputs[0], inputs[2]), 4 * b * max(n, m) * d)
    for backward in (False, True):
        runs = [bind(operation, inputs, backward) for operation in OPERATIONS[function]]
        results = compare(runs, like.device, seconds)
        case = Case(function, positions, shape, kernel, backward, *results, budget)
        if case.ratio > BAR:
            case.ours, case.usual = compare(runs, like.device, 4 * seconds, rounds=9)
        yield case


def make_inputs(b: int, n: int, m: int, d: int, channels: int, like: Tensor) -> list[Tensor]:
    """theta, phi, g and w_f of unit variance, and such that a_i + b_j has it too."""
    shapes = ((b, d, n), (b, d, m), (b, channels, m), (2 * d,))
    *features, w_f = (torch.randn(shape, device=like.device, dtype=like.dtype) for shape in shapes)
    return [*features, w_f / (2 * d) ** 0.5]


def bind(operation: Operation, inputs: list[Tensor], backward: bool) -> Run:
    """The forward pass alone, or with the backward pass."""
    if not backward:
        return torch.no_grad()(lambda: operation(*inputs))
    theta, _, g, _ = inputs
    dy = torch.randn(theta.shape[0], g.shape[1], theta.shape[2], device=g.device, dtype=g.dtype)
    return lambda: operation(*(t.detach().requires_grad_() for t in inputs)).to(dy.dtype).backward(dy)


def operation_table(cases: Sequence[Case]) -> str:
    """A row for each case; the largest tensor is relative to its budget."""
    headers = ["f", "positions", "N x M", "pass", "kernel", "ours ms", "usual ms", "ratio"]
    rows = []
    for case in cases:
        _, n, m, _ = case.shape
        row = [case.function, case.positions, f"{n} x {m}", PASSES[case.backward], case.kernel]
        rows.append([*row, *comparison(case.ours, case.usual), f"{case.used:.2f}"])
    return table(rows, [*headers, "ours MB", "usual MB", "ratio", "largest"])


def verdicts(cases: Sequence[Case]) -> tuple[str, bool]:
    """Whether each requirement is met, with the case that is nearest to breaking it; whether all are met."""
    slowest, largest = max(cases, key=lambda case: case.ratio), max(cases, key=lambda case: case.used)
    is_fast, is_small = slowest.ratio <= BAR, largest.used <= 1
    text = (
        f"{'met' if is_fast else 'NOT met'}: time ratio <= {BAR} at every size; "
        f"the worst is {slowest.ratio:.3f} ({slowest})\n"
        f"{'met' if is_small else 'NOT met'}: no tensor above the budget; "
        f"the largest has {largest.used:.2f} of it ({largest})"
    )
    return text, is_fast and is_small
