"""Every way to compute the operation against the slow matrix in float64, its gradients and its limits."""

from collections.abc import Callable, Iterator

import pytest
import torch
from benchmarking.measure import peak_memory
from torch import Tensor

from nl_detectron.layers import active_sums, attention, cost, pairwise

WAYS = {
    "softmax_attention": ("matrix", "blocks", "fused"),
    "dot_product": ("matrix", "channels"),
    "concatenation": ("matrix", "sorted"),
}
ALL_WAYS = [(function, way) for function, ways in WAYS.items() for way in ways]
SCALE = 0.3


@pytest.fixture
def force(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Choose a way whatever it costs, with blocks so small that there are many."""
    monkeypatch.setattr(attention, "BLOCK_BYTES", 2 * 4 * 16 * 7)
    monkeypatch.setattr(active_sums, "BLOCK_BYTES", 4 * 4 * 40)
    return lambda way: monkeypatch.setattr(pairwise, "cheapest", lambda *_, **__: (way, None))


def call(function: str, theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    if function == "softmax_attention":
        return pairwise.softmax_attention(theta, phi, g, SCALE)
    if function == "dot_product":
        return pairwise.dot_product(theta, phi, g)
    return pairwise.concatenation(theta, phi, g, w_f)


def reference(function: str, theta: Tensor, phi: Tensor, g: Tensor, w_f: Tensor) -> Tensor:
    """Eq. 1-5 pair by pair, in float64; differentiable."""
    theta, phi, g, w_f = (t.double() for t in (theta, phi, g, w_f))
    n, m = theta.shape[2], phi.shape[2]
    pairs = torch.cat(
        [theta.unsqueeze(3).expand(-1, -1, n, m), phi.unsqueeze(2).expand(-1, -1, n, m)], dim=1
    )  # (B, 2d, N, M)
    if function == "concatenation":
        f = torch.relu(torch.einsum("c,bcij->bij", w_f, pairs)) / m
    else:
        d = theta.shape[1]
        f = (pairs[:, :d] * pairs[:, d:]).sum(1)
        f = (SCALE * f).softmax(dim=2) if function == "softmax_attention" else f / m
    return torch.einsum("bij,bcj->bci", f, g)


def inputs(
    b: int, n: int, m: int, d: int, d_g: int, dtype: torch.dtype, channels_last: bool = False
) -> list[Tensor]:
    features = [torch.randn(b, *shape, dtype=dtype) for shape in ((d, n), (d, m), (d_g, m))]
    if channels_last:
        features = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in features]
    return [*features, torch.randn(2 * d, dtype=dtype)]


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("sizes", [(1, 9, 7, 4, 4), (3, 17, 16, 3, 5), (2, 1, 1, 4, 4), (5, 40, 3, 2, 2)])
@pytest.mark.parametrize(("function", "way"), ALL_WAYS)
def test_every_way_equals_the_equations(
    force: Callable[[str], None], function: str, way: str, sizes: tuple[int, ...], channels_last: bool
) -> None:
    force(way)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        operands = [t.requires_grad_() for t in inputs(*sizes, dtype, channels_last)]
        y, expected = call(function, *operands), reference(function, *operands)
        weights = torch.randn_like(expected)
        assert y.dtype == dtype
        gradients = torch.autograd.grad((y * weights).sum(), operands, allow_unused=True)
        references = torch.autograd.grad((expected * weights).sum(), operands, allow_unused=True)
        pairs = zip((y, *gradients), (expected, *references), strict=True)
        for value, reference_value in (pair for pair in pairs if pair[1] is not None):
            largest = reference_value.abs().max().clamp(min=1)
            assert (value.double() - reference_value).abs().max() <= tolerance * 10 * largest


@pytest.mark.parametrize(("function", "way"), ALL_WAYS)
def test_gradients(force: Callable[[str], None], function: str, way: str) -> None:
    force(way)
    operands = [t.requires_grad_() for t in inputs(2, 9, 7, 3, 3, torch.float64)]
    unused = () if function == "concatenation" else (operands.pop(),)
    assert torch.autograd.gradcheck(lambda *args: call(function, *args, *unused), operands)


@pytest.mark.parametrize("case", ["ties", "all active", "none active", "some rows without any"])
@pytest.mark.parametrize("way", WAYS["concatenation"])
def test_gradients_of_concatenation_at_its_limits(force: Callable[[str], None], way: str, case: str) -> None:
    """As many rows are active as ReLU lets through; w_f is chosen such that a and b are theta's and phi's."""
    force(way)
    theta, phi, g, _ = inputs(2, 8, 6, 1, 3, torch.float64)
    if case == "ties":
        theta, phi = theta.mul(2).round().add(0.25), phi.mul(2).round()
        assert phi.unique().numel() < phi.numel()
    else:
        theta += {"all active": 20.0, "none active": -20.0, "some rows without any": 0.0}[case]
        theta[:, :, ::2] -= 20.0 * (case == "some rows without any")
    w_f = torch.ones(2, dtype=torch.float64)
    active = theta.transpose(1, 2) + phi > 0
    assert {"all active": active.all(), "none active": not active.any()}.get(case, active.any())
    operands = [t.requires_grad_() for t in (theta, phi, g, w_f)]
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
    gradients = torch.autograd.grad((active_sums.sorted_concatenation(a, b, g) * weights).sum(), (a, b, g))
    for gradient, reference_gradient in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference_gradient)


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
    y = active_sums.sorted_concatenation(a, b, g) * weights
    assert (y - expected).abs().max() < 1e-6 * expected.abs().max()
    gradients = torch.autograd.grad(y.sum(), (a, b, g))
    for gradient, exact in zip(gradients, torch.autograd.grad(expected.sum(), (a, b, g)), strict=True):
        assert (gradient - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("function", "way"), [pair for pair in ALL_WAYS if pair[1] != "fused"])
def test_half_precision_is_summed_in_float32(
    force: Callable[[str], None], function: str, way: str, dtype: torch.dtype
) -> None:
    force(way)
    operands = inputs(2, 30, 300, 8, 8, dtype)
    assert call(function, *operands).equal(call(function, *(t.float() for t in operands)))


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("way", ["matrix", "blocks"])
def test_huge_logits(force: Callable[[str], None], way: str, dtype: torch.dtype, factor: float) -> None:
    """A softmax in float32, relative to its largest logit, stays finite, and so do its gradients."""
    force(way)
    theta, phi, g, _ = inputs(2, 30, 40, 8, 8, torch.float32)
    operands = [t.to(dtype).requires_grad_() for t in (factor * theta, factor * phi, g)]
    y = pairwise.softmax_attention(*operands, SCALE)
    assert (theta.transpose(1, 2) @ phi * factor**2 * SCALE).abs().max() > 65504
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(t.grad.isfinite().all() for t in operands)
    exact = torch.softmax(SCALE * operands[0].double().transpose(1, 2) @ operands[1].double(), dim=2)
    expected = operands[2].double() @ exact.transpose(1, 2)
    assert (y.double() - expected).abs().max() < 4 * torch.finfo(dtype).eps * expected.abs().max()


def test_fused_attention_stays_out_of_training_for_huge_logits() -> None:
    """Why `cost` has it so: PyTorch's gradients are off by orders of magnitude. Fails once they are not."""
    theta, phi, g, _ = inputs(2, 30, 40, 8, 8, torch.float32)
    operands = [t.requires_grad_() for t in (1e4 * theta, 1e4 * phi, g)]
    fused = torch.autograd.grad(attention.fused_attention(*operands, SCALE).square().mean(), operands[2])
    blocks = torch.autograd.grad(attention.blocked_attention(*operands, SCALE).square().mean(), operands[2])
    exact = torch.autograd.grad(
        reference("softmax_attention", *operands, operands[0]).square().mean(), operands[2]
    )
    largest = exact[0].abs().max()
    assert (blocks[0] - exact[0]).abs().max() < 0.01 * largest
    assert not (fused[0] - exact[0]).abs().max() < 100 * largest


@pytest.mark.parametrize("function", WAYS)
def test_nan_features_are_not_hidden(function: str) -> None:
    operands = inputs(1, 2100, 2100, 4, 4, torch.float32)
    operands[1][0, 0, 7] = float("nan")
    assert call(function, *operands).isnan().all()


@pytest.mark.parametrize("function", WAYS)
def test_no_matrix_is_held(function: str) -> None:
    """Of one that is larger than a block and than its operands, in neither pass."""
    n = 3000
    operands = [t.requires_grad_() for t in inputs(1, n, n, 8, 8, torch.float32)]

    def step() -> None:
        call(function, *operands).sum().backward()

    step()  # so that the gradients are there already
    assert peak_memory(step, torch.device("cpu")) < 4 * n * n / 2
    assert 4 * n * n > 2 * cost.HELD_BYTES


@pytest.mark.parametrize(("function", "way"), ALL_WAYS)
def test_empty_batch(force: Callable[[str], None], function: str, way: str) -> None:
    force(way)
    operands = [t.requires_grad_() for t in inputs(0, 5, 4, 3, 3, torch.float32)[:3]]
    y = call(function, *operands, torch.randn(6))
    y.sum().backward()
    assert y.shape == (0, 3, 5)
    assert all(t.grad.shape == t.shape for t in operands)


@pytest.mark.parametrize(("function", "way"), ALL_WAYS)
def test_autocast_in_the_backward_pass(force: Callable[[str], None], function: str, way: str) -> None:
    """It is not meant to be on there, and people have it on."""
    force(way)
    operands = [t.requires_grad_() for t in inputs(2, 20, 10, 4, 4, torch.float32)]
    y = call(function, *operands)
    gradients = torch.autograd.grad(y.sum(), operands[:3], retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        half_gradients = torch.autograd.grad(y.sum(), operands[:3])
    for half, gradient in zip(half_gradients, gradients, strict=True):
        assert (half - gradient).abs().max() <= 0.02 * gradient.abs().max()


@pytest.mark.parametrize("function", WAYS)
def test_operands_are_left_as_they_are(force: Callable[[str], None], function: str) -> None:
    for way in WAYS[function]:
        force(way)
        operands = inputs(2, 20, 10, 4, 4, torch.float32)
        copies = [t.clone() for t in operands]
        call(function, *[t.requires_grad_() for t in operands]).sum().backward()
        assert all(t.equal(copy) for t, copy in zip(operands, copies, strict=True))
