"""Every kernel of every pairwise function against Eq. 1-5 written pair by pair in float64, and its limits."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nl_detectron.layers import kernels, pairwise

FUNCTIONS = {"softmax": "softmax_attention", "dot_product": "dot_product", "concatenation": "concatenation"}
KERNELS = {
    "softmax": ("matrix", "fused"),
    "dot_product": ("matrix", "associative"),
    "concatenation": ("matrix", "sorted"),
}
ALL_KERNELS = [(form, kernel) for form, names in KERNELS.items() for kernel in names]
SCALE = 0.3


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Take a kernel whatever the sizes, with slabs so small that there are several."""
    monkeypatch.setattr(kernels, "SLAB_BYTES", 4 * 4 * 40)
    return lambda kernel: monkeypatch.setattr(pairwise, "select_kernel", lambda *_: kernel)


def call(form: str, theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    options = {"softmax": (SCALE,), "dot_product": (), "concatenation": (w_f,)}[form]
    return getattr(pairwise, FUNCTIONS[form])(theta, phi, g, *options)


def reference(form: str, theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 1-5 pair by pair, in float64; differentiable."""
    theta, phi, g, w_f = (t.double() for t in (theta, phi, g, w_f))
    d, n, m = theta.shape[1], theta.shape[2], phi.shape[2]
    pairs = torch.cat(
        [theta.unsqueeze(3).expand(-1, -1, n, m), phi.unsqueeze(2).expand(-1, -1, n, m)], dim=1
    )  # (B, 2d, N, M)
    if form == "concatenation":
        f = torch.relu(torch.einsum("c,bcij->bij", w_f, pairs)) / m
    else:
        f = (pairs[:, :d] * pairs[:, d:]).sum(1)
        f = (SCALE * f).softmax(dim=2) if form == "softmax" else f / m
    return torch.einsum("bij,bcj->bci", f, g)


def inputs(
    b: int, n: int, m: int, d: int, d_g: int, dtype: torch.dtype, channels_last: bool = False
) -> list[Tensor]:
    features = [torch.randn(b, *shape, dtype=dtype) for shape in ((d, n), (d, m), (d_g, m))]
    if channels_last:
        features = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in features]
    return [*features, torch.randn(2 * d, dtype=dtype)]


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("sizes", [(1, 9, 7, 4, 4), (3, 17, 16, 5, 3), (2, 1, 1, 4, 4), (5, 40, 3, 2, 2)])
@pytest.mark.parametrize(("form", "kernel"), ALL_KERNELS)
def test_every_kernel_equals_the_equations(
    force: Callable[[str], None], form: str, kernel: str, sizes: tuple[int, ...], channels_last: bool
) -> None:
    force(kernel)
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        operands = [t.requires_grad_() for t in inputs(*sizes, dtype, channels_last)]
        y, expected = call(form, *operands), reference(form, *operands)
        weights = torch.randn_like(expected)
        assert y.dtype == dtype
        gradients = torch.autograd.grad((y * weights).sum(), operands, allow_unused=True)
        references = torch.autograd.grad((expected * weights).sum(), operands, allow_unused=True)
        for value, exact in zip((y, *gradients), (expected, *references), strict=True):
            if exact is not None:
                assert (value.double() - exact).abs().max() <= tolerance * exact.abs().max().clamp(min=1)


@pytest.mark.parametrize(("form", "kernel"), ALL_KERNELS)
def test_gradients_and_their_gradients(force: Callable[[str], None], form: str, kernel: str) -> None:
    force(kernel)
    operands = [t.requires_grad_() for t in inputs(2, 6, 5, 3, 2, torch.float64)]
    unused = () if form == "concatenation" else (operands.pop(),)

    def function(*args: Tensor) -> Tensor:
        return call(form, *args, *unused)

    assert torch.autograd.gradcheck(function, operands)
    if kernel != "sorted":
        assert torch.autograd.gradgradcheck(function, operands)
    else:
        with pytest.raises(RuntimeError, match="no double backward"):
            torch.autograd.grad(function(*operands).sum(), operands, create_graph=True)


def test_a_double_backward_where_only_some_operands_have_gradients(force: Callable[[str], None]) -> None:
    force("fused")
    theta, phi, g, w_f = inputs(1, 6, 5, 3, 3, torch.float64)
    phi.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda phi: call("softmax", theta, phi, g, w_f), (phi,))


@pytest.mark.parametrize("case", ["ties", "all active", "none active", "some rows without any"])
@pytest.mark.parametrize("kernel", KERNELS["concatenation"])
def test_gradients_of_concatenation_at_its_limits(
    force: Callable[[str], None], kernel: str, case: str
) -> None:
    """As many rows are active as ReLU lets through; w_f is chosen such that a and b are theta's and phi's."""
    force(kernel)
    theta, phi, g, _ = inputs(2, 8, 6, 1, 3, torch.float64)
    if case == "ties":
        theta, phi = theta.mul(2).round().add(0.25), phi.mul(2).round()
        assert phi.unique().numel() < phi.numel()
    else:
        theta += {"all active": 20.0, "none active": -20.0, "some rows without any": 0.0}[case]
        theta[:, :, ::2] -= 20.0 * (case == "some rows without any")
    active = theta.transpose(1, 2) + phi > 0
    assert {"all active": active.all(), "none active": not active.any()}.get(case, active.any())
    operands = [t.requires_grad_() for t in (theta, phi, g, torch.ones(2, dtype=torch.float64))]
    assert torch.autograd.gradcheck(pairwise.concatenation, operands)


def test_gradient_of_concatenation_where_a_pair_is_zero() -> None:
    """At the kink itself there is no derivative: the gradient is ReLU's, 0."""
    a = torch.tensor([[1.0, 2.0, -3.0]], requires_grad=True)
    b = torch.tensor([[-1.0, -2.0, 3.0, 0.5]], requires_grad=True)
    g = torch.randn(1, 2, 4, requires_grad=True)
    affinity = torch.relu(a.unsqueeze(2) + b.unsqueeze(1))
    assert (affinity == 0).sum() > (a.unsqueeze(2) + b.unsqueeze(1) < 0).sum()
    weights = torch.randn(1, 2, 3)
    expected = torch.autograd.grad((g @ affinity.transpose(1, 2) * weights).sum(), (a, b, g))
    gradients = torch.autograd.grad((kernels.sorted_concatenation(a, b, g) * weights).sum(), (a, b, g))
    torch.testing.assert_close(gradients, expected)


@pytest.mark.parametrize("case", ["a common offset", "an outlier in b", "an outlier in a"])
def test_sorted_concatenation_loses_no_digits(case: str) -> None:
    """To an offset that a and b have with opposite signs, or to a huge value that is in no other pair."""
    a, b, g = torch.rand(1, 200), torch.rand(1, 150), torch.randn(1, 8, 150)
    if case == "a common offset":
        a, b = a + 1e4, b - 1e4
    elif case == "an outlier in b":
        b[:, 3], g[:, :, 3] = 1e5, 0
    else:
        a[:, 3] = 1e5
    a, b, g = a.requires_grad_(), b.requires_grad_(), g.requires_grad_()
    weights = torch.randn(1, 8, 200) * (a < 1e5 - 1)  # a loss that does not see the row of the outlier
    pairs = torch.relu(a.double().unsqueeze(2) + b.double().unsqueeze(1))
    expected = (g.double() @ pairs.transpose(1, 2)) * weights
    y = kernels.sorted_concatenation(a, b, g) * weights
    assert (y - expected).abs().max() < 1e-6 * expected.abs().max()
    gradients = torch.autograd.grad(y.sum(), (a, b, g))
    for gradient, exact in zip(gradients, torch.autograd.grad(expected.sum(), (a, b, g)), strict=True):
        assert (gradient - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("form", "kernel"), ALL_KERNELS)
def test_half_precision_is_summed_in_float32(
    force: Callable[[str], None], form: str, kernel: str, dtype: torch.dtype
) -> None:
    force(kernel)
    operands = inputs(2, 30, 300, 8, 8, dtype)
    assert call(form, *operands).equal(call(form, *(t.float() for t in operands)))


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kernel", KERNELS["softmax"])
def test_huge_logits(force: Callable[[str], None], kernel: str, dtype: torch.dtype, factor: float) -> None:
    """A softmax in float32, relative to its largest logit, stays finite, and so do the matrix's gradients."""
    force(kernel)
    theta, phi, g, _ = inputs(2, 30, 40, 8, 8, torch.float32)
    operands = [t.to(dtype).requires_grad_() for t in (factor * theta, factor * phi, g)]
    y = pairwise.softmax_attention(*operands, SCALE)
    assert (theta.transpose(1, 2) @ phi * factor**2 * SCALE).abs().max() > 65504
    assert y.isfinite().all()
    exact = torch.softmax(SCALE * operands[0].double().transpose(1, 2) @ operands[1].double(), dim=2)
    expected = operands[2].double() @ exact.transpose(1, 2)
    assert (y.double() - expected).abs().max() < 4 * torch.finfo(dtype).eps * expected.abs().max()
    if kernel == "matrix":
        y.float().square().mean().backward()
        assert all(t.grad.isfinite().all() for t in operands)


def test_gradients_of_fused_attention_are_wrong_for_huge_logits(force: Callable[[str], None]) -> None:
    """The documented limit of large maps: PyTorch's gradients are far off at logits of 1e9.
    Once they are not, docs/performance.md has to say so.
    """
    theta, phi, g, w_f = inputs(2, 30, 40, 8, 8, torch.float32)
    operands = [t.requires_grad_() for t in (1e4 * theta, 1e4 * phi, g)]
    gradients = {}
    for kernel in KERNELS["softmax"]:
        force(kernel)
        y = call("softmax", *operands, w_f)
        gradients[kernel] = torch.autograd.grad(y.square().mean(), operands[2])[0]
    exact = torch.autograd.grad(reference("softmax", *operands, w_f).square().mean(), operands[2])[0]
    largest = exact.abs().max()
    assert (gradients["matrix"] - exact).abs().max() < 0.01 * largest
    assert not (gradients["fused"] - exact).abs().max() < 100 * largest


@pytest.mark.parametrize(("form", "kernel"), ALL_KERNELS)
def test_nan_features_are_not_hidden(force: Callable[[str], None], form: str, kernel: str) -> None:
    if kernel == "fused" and torch.__version__.startswith("2.5."):
        pytest.skip("fused attention of PyTorch 2.5 on CPUs turns NaN in its logits into 0")
    force(kernel)
    operands = inputs(1, 210, 200, 4, 4, torch.float32)
    operands[1][0, 0, 7] = float("nan")
    assert call(form, *operands).isnan().all()


class LargestTensor(TorchDispatchMode):
    """The most elements of a tensor that an operation puts out within it."""

    elements = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.elements = max(self.elements, t.untyped_storage().nbytes() // t.element_size())
        return out


@pytest.mark.parametrize("channels", [(8, 8), (8, 4)], ids=["d = D", "d = 2 D"])
@pytest.mark.parametrize("form", FUNCTIONS)
def test_no_matrix_above_the_budget(
    monkeypatch: pytest.MonkeyPatch, form: str, channels: tuple[int, int]
) -> None:
    """In neither pass."""
    n = 600
    monkeypatch.setattr(kernels, "MATRIX_BYTES", 4 * n * n // 3)
    operands = [t.requires_grad_() for t in inputs(1, n, n, *channels, torch.float32)]
    with LargestTensor() as largest:
        call(form, *operands).sum().backward()
    assert largest.elements < n * n / 3


@pytest.mark.parametrize(("form", "kernel"), ALL_KERNELS)
def test_empty_batch(force: Callable[[str], None], form: str, kernel: str) -> None:
    force(kernel)
    operands = [t.requires_grad_() for t in inputs(0, 5, 4, 3, 3, torch.float32)[:3]]
    y = call(form, *operands, torch.randn(6))
    y.sum().backward()
    assert y.shape == (0, 3, 5)
    assert all(t.grad.shape == t.shape for t in operands)
