"""The operation alone, given theta, phi and g: ours, and the usual sequence of operations.

The usual sequences stand in for public implementations. They are written from the equations in the leanest
form that those have: in place where that is possible.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nl_detectron.layers import kernels, pairwise

from .measure import Result, compare

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


OPERATIONS: dict[str, dict[str, Callable[..., Tensor]]] = {
    "gaussian": {"ours": our_softmax, "usual": usual_softmax},
    "embedded_gaussian": {"ours": our_softmax, "usual": usual_softmax},
    "dot_product": {"ours": our_dot_product, "usual": usual_dot_product},
    "concatenation": {"ours": pairwise.concatenation, "usual": usual_concatenation},
}


@dataclass
class Case:
    """One pass of the operation at one size.

    Attributes:
        errors: of y against float64, relative to its largest value.
        largest: our largest tensor, relative to B N M elements.
        used: the same, relative to what it may have: the budget for a matrix, or an operand.
    """

    function: str
    positions: str
    n: int
    m: int
    kernel: str
    backward: bool
    results: dict[str, Result]
    errors: dict[str, float]
    largest: float
    used: float

    def __str__(self) -> str:
        return f"{self.function}, {self.positions}, {'forward+backward' if self.backward else 'forward'}"

    @property
    def ratio(self) -> float:
        return self.results["ours"].seconds / self.results["usual"].seconds


def run_case(
    function: str,
    positions: str,
    shape: Sequence[int],
    run_on: torch.Tensor,
    seconds: float,
    usual: bool = True,
) -> Iterator[Case]:
    """Forward, then forward and backward.

    Args:
        shape: B, N, M and D.
        run_on: a tensor of the device and dtype.
        usual: whether the usual sequence competes.
    """
    b, n, m, channels = shape
    d = 2 * channels if function == "gaussian" else channels
    inputs = make_inputs(b, n, m, d, channels, run_on)
    form = "softmax" if "gaussian" in function else function
    kernel, errors = kernels.select_kernel(form, *inputs[:3]), _errors(function, inputs)
    allowed = max(kernels.MATRIX_BYTES // 4 * (d // channels), b * n * d, b * m * d)
    for backward in (False, True):
        operations = OPERATIONS[function]
        contestants = {
            who: _bind(operations[who], inputs, backward) for who in ("ours", "usual")[: 1 + usual]
        }
        results = compare(contestants, run_on.device, seconds)
        largest = results["ours"].elements
        case = function, positions, n, m, kernel, backward, results, errors
        yield Case(*case, largest / (b * n * m), largest / allowed)


def make_inputs(b: int, n: int, m: int, d: int, channels: int, run_on: Tensor) -> list[Tensor]:
    """theta, phi, g and w_f of unit variance, and such that a_i + b_j has it too."""
    shapes = ((b, d, n), (b, d, m), (b, channels, m), (2 * d,))
    *features, w_f = (torch.randn(shape, device=run_on.device, dtype=run_on.dtype) for shape in shapes)
    return [*features, w_f / (2 * d) ** 0.5]


def _bind(operation: Callable[..., Tensor], inputs: list[Tensor], backward: bool) -> Callable[[], object]:
    if not backward:
        return torch.no_grad()(lambda: operation(*inputs))
    theta, _, g, _ = inputs
    dy = torch.randn(theta.shape[0], g.shape[1], theta.shape[2], device=g.device, dtype=g.dtype)
    return lambda: operation(*(t.detach().requires_grad_() for t in inputs)).to(dy.dtype).backward(dy)


@torch.no_grad()
def _errors(function: str, inputs: list[Tensor]) -> dict[str, float]:
    """At some of the positions, each of which has its own sum over all j."""
    theta, *others = inputs
    some = torch.randperm(theta.shape[2], device=theta.device)[:500]
    exact = OPERATIONS[function]["usual"](theta[..., some].double(), *(t.double() for t in others))
    values = {who: op(*inputs)[..., some].double() for who, op in OPERATIONS[function].items()}
    return {who: ((y - exact).abs().max() / exact.abs().max()).item() for who, y in values.items()}


def verdicts(cases: Sequence[Case]) -> str:
    """Whether each bar is met, with the worst case."""
    slowest, largest = max(cases, key=lambda case: case.ratio), max(cases, key=lambda case: case.used)
    met = {True: "met", False: "NOT met"}
    return (
        f"time ratio <= {BAR} at every size: {met[slowest.ratio <= BAR]}; "
        f"the worst is {slowest.ratio:.2f} ({slowest})\n"
        f"no matrix above the budget: {met[largest.used <= 1]}; the largest tensor has "
        f"{largest.used:.2f} of the budget, or of the operands if these are larger ({largest})"
    )
