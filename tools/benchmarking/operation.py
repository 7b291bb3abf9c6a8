"""The operation alone, given theta, phi and g: ours, and the usual sequence of operations.

The usual sequences stand in for public implementations. They are written from the equations in the leanest
form that those have: in place where that is possible.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nl_detectron.layers import kernels, pairwise

from .measure import LargestTensor, Result, compare, table

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
BAR = 1.05  # of our time to the usual
PASSES = ("forward", "forward+backward")
HEADERS = ["f", "positions", "N x M", "pass", "kernel", "ours ms", "usual ms", "ratio"]
HEADERS += ["ours MB", "usual MB", "error", "usual", "largest tensor / (B N M)"]


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
        largest: the elements of our largest tensor, relative to B N M.
        used: the same, relative to what it may have: the budget for a matrix, or an operand.
    """

    function: str
    shape: str
    n: int
    m: int
    backward: bool
    kernel: str
    results: dict[str, Result]
    errors: dict[str, float]
    largest: float
    used: float

    @property
    def ratio(self) -> float:
        return self.results["ours"].seconds / self.results["usual"].seconds

    def __str__(self) -> str:
        return f"{self.function}, {self.shape}, {PASSES[self.backward]}"


def run_case(
    function: str, shape: str, device: torch.device, dtype: torch.dtype, seconds: float
) -> Iterator[Case]:
    """Forward, then forward and backward."""
    b, n, m, channels = SHAPES[shape]
    d = 2 * channels if function == "gaussian" else channels
    inputs = make_inputs(b, n, m, d, channels, device, dtype)
    form = "softmax" if "gaussian" in function else function
    budget = kernels.MATRIX_BYTES // 4 * (d // channels)
    for backward in (False, True):
        contestants = passes(function, inputs, backward)
        with LargestTensor() as largest:
            contestants["ours"]()
        yield Case(
            *(function, shape, n, m, backward),
            kernel=kernels.select_kernel(form, *inputs[:3]),
            results=compare(contestants, device, seconds),
            errors=_errors(function, inputs),
            largest=largest.elements / (b * n * m),
            used=largest.elements / max(budget, b * n * d, b * m * d),
        )


def make_inputs(
    b: int, n: int, m: int, d: int, channels: int, device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """theta, phi, g and w_f of unit variance, and such that a_i + b_j has it too."""
    shapes = ((b, d, n), (b, d, m), (b, channels, m), (2 * d,))
    *features, w_f = (torch.randn(shape, device=device, dtype=dtype) for shape in shapes)
    return [*features, w_f / (2 * d) ** 0.5]


def passes(function: str, inputs: list[Tensor], backward: bool) -> dict[str, Callable[[], object]]:
    """A pass of each contestant."""
    operations = OPERATIONS[function]
    if not backward:
        return {name: torch.no_grad()(lambda op=op: op(*inputs)) for name, op in operations.items()}
    theta, _, g, _ = inputs
    dy = torch.randn(theta.shape[0], g.shape[1], theta.shape[2], device=g.device, dtype=g.dtype)

    def run(op: Callable[..., Tensor]) -> None:
        op(*(t.detach().requires_grad_() for t in inputs)).to(dy.dtype).backward(dy)

    return {name: lambda op=op: run(op) for name, op in operations.items()}


@torch.no_grad()
def _errors(function: str, inputs: list[Tensor]) -> dict[str, float]:
    """At some of the positions, each of which has its own sum over all j."""
    theta, *others = inputs
    some = torch.randperm(theta.shape[2], device=theta.device)[:500]
    expected = OPERATIONS[function]["usual"](theta[..., some].double(), *(t.double() for t in others))
    results = {name: op(*inputs)[..., some] for name, op in OPERATIONS[function].items()}
    largest = expected.abs().max()
    return {name: ((y.double() - expected).abs().max() / largest).item() for name, y in results.items()}


def operation_table(cases: list[Case]) -> str:
    """A line a case."""
    rows = []
    for case in cases:
        ours, usual = case.results["ours"], case.results["usual"]
        row = [case.function, case.shape, f"{case.n} x {case.m}", PASSES[case.backward], case.kernel]
        row += [f"{1e3 * ours.seconds:.1f}", f"{1e3 * usual.seconds:.1f}", f"{case.ratio:.2f}"]
        row += [f"{ours.bytes / 1e6:.1f}", f"{usual.bytes / 1e6:.1f}"]
        row += [f"{case.errors[who]:.1e}" for who in ("ours", "usual")]
        rows.append([*row, f"{case.largest:.2f}"])
    return table(rows, HEADERS)


def verdicts(cases: list[Case]) -> str:
    """Whether each bar is met, with the worst case."""
    slowest, largest = max(cases, key=lambda case: case.ratio), max(cases, key=lambda case: case.used)
    return "\n".join(
        [
            f"time ratio <= {BAR} at every size: {_met(slowest.ratio <= BAR)}; "
            f"the worst is {slowest.ratio:.2f} ({slowest})",
            f"no matrix above the budget: {_met(largest.used <= 1)}; the largest tensor, relative to the budget "
            f"and the operands, is {largest.used:.2f} ({largest})",
        ]
    )


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT met"
