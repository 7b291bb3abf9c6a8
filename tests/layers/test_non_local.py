"""The block against the loops of reference.py, its gradients, its initialisation and its limits."""

import math

import pytest
import torch
from block_cases import PAIRWISE, SUBSAMPLE, randomize
from detectron2.layers import FrozenBatchNorm2d
from reference import reference_block
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron import NonLocalBlock

SIZES = {1: (7,), 2: (5, 4), 3: (2, 3, 4)}
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dim", SIZES)
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize("norm", ["", "BN"])
@pytest.mark.parametrize("scale", [True, False])
def test_equals_the_equations(pairwise: str, subsample: str, dim: int, norm: str, scale: bool) -> None:
    block = NonLocalBlock(6, dim=dim, pairwise=pairwise, subsample=subsample, norm=norm, scale=scale)
    block = randomize(block).double().eval()
    x = torch.randn(2, 6, *SIZES[dim], dtype=torch.float64)
    expected = reference_block(x, block.state_dict(), pairwise=pairwise, subsample=subsample, scale=scale)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)
    assert not block(x).equal(x)


@pytest.mark.parametrize(
    ("dim", "subsample", "norm"),
    [(1, "none", ""), (2, "input", ""), (2, "embedding", ""), (2, "none", "BN"), (3, "input", "")],
)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_gradients(pairwise: str, dim: int, subsample: str, norm: str) -> None:
    block = NonLocalBlock(4, dim=dim, pairwise=pairwise, subsample=subsample, norm=norm)
    block = randomize(block).double().eval()
    x = torch.randn(1, 4, *SIZES[dim], dtype=torch.float64, requires_grad=True)
    parameters = dict(block.named_parameters())

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *parameters.values()))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN", ""])
@pytest.mark.parametrize("pairwise", ["dot_product", "concatenation"])
def test_new_block_is_the_identity_where_float16_overflows(
    pairwise: str, norm: str, training: bool, dtype: torch.dtype
) -> None:
    """f is not bounded in these forms: y is far beyond 65504 for features of some hundreds."""
    block = NonLocalBlock(256, pairwise=pairwise, norm=norm)
    x = (300 * torch.randn(2, 256, 6, 6)).relu().to(dtype)
    theta, phi, g = block.theta(x.float()), block.phi(x.float()), block.g(x.float())
    assert block.operate(theta.flatten(2), phi.flatten(2), g.flatten(2)).abs().max() > 65504
    assert block.to(dtype).train(training)(x).equal(x)


@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN", ""])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_new_block_learns(pairwise: str, norm: str) -> None:
    """Zero initialisation leaves what is zero a gradient, and everything else after one step."""
    block = NonLocalBlock(32, pairwise=pairwise, norm=norm)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    x = torch.randn(4, 32, 6, 6)
    for is_new in (True, False):
        z = block(x)
        assert z.equal(x) == is_new
        optimizer.zero_grad()
        (z * torch.linspace(-1, 1, 32).view(1, -1, 1, 1)).square().mean().backward()
        optimizer.step()
    idle = [name for name, p in block.named_parameters() if not p.grad.abs().sum() > 0]
    # Softmax does not see what all its logits share: theta's product with phi's bias.
    assert idle == [] or (idle == ["phi.bias"] and "gaussian" in pairwise)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN", "GN", "FrozenBN", ""])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_new_block_is_the_identity(pairwise: str, subsample: str, norm: str, training: bool) -> None:
    """On a map, on the smallest ones, and for an empty batch."""
    for dim in SIZES:
        block = NonLocalBlock(32, dim=dim, pairwise=pairwise, subsample=subsample, norm=norm)
        block.train(training)
        for batch, side in ((0, 4), (1, 1), (2, 1), (1, 3), (2, 6)):
            x = torch.randn(batch, 32, *[side] * dim, requires_grad=True)
            z = block(x)
            assert z.equal(x)
            z.sum().backward()
            assert x.grad.shape == x.shape
        statistics = [b for name, b in block.named_buffers() if "running" in name]
        assert all(b.isfinite().all() for b in statistics)


@pytest.mark.parametrize(
    ("size", "pooled"),
    [
        ((1, 6), (1, 3)),
        ((5, 1), (2, 1)),
        ((1, 1), (1, 1)),
        ((5, 6), (2, 3)),
        ((7,), (7,)),
        ((2, 3, 4), (2, 1, 2)),
    ],
)
def test_time_and_a_side_of_one_are_not_pooled(size: tuple[int, ...], pooled: tuple[int, ...]) -> None:
    _, phi, g = NonLocalBlock(4, dim=len(size)).embed(torch.randn(1, 4, *size))
    assert phi.shape == g.shape == (1, 2, *pooled)


def test_initialisation() -> None:
    """MSRA: standard deviation sqrt(2 / fan_out) for 1x1 convolutions, zero biases."""
    block = NonLocalBlock(512, pairwise="concatenation")
    for convolution in (block.theta, block.phi, block.g, block.out):
        deviation = math.sqrt(2 / convolution.weight.shape[0])
        assert convolution.weight.std().item() == pytest.approx(deviation, rel=0.02)
        assert convolution.bias is None or not convolution.bias.any()
    assert block.w_f.weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.1)
    assert block.w_f.weight.numel() == 2 * block.inner_channels
    assert not block.out.norm.weight.any()
    for norm in ("", "FrozenBN"):
        out = NonLocalBlock(32, norm=norm).out
        assert not out.weight.any()


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_new_w_f_ignores_the_mean_over_the_channels(dim: int) -> None:
    """It moves no pair, however large it is: after a ReLU it would decide the sign of nearly all of them."""
    block = NonLocalBlock(8, dim=dim, pairwise="concatenation", subsample="none").double()
    x = torch.rand(2, 8, *range(3, 3 + dim), dtype=torch.double)
    common = 100 * torch.rand(2, 1, *x.shape[2:], dtype=torch.double)
    halves = block.w_f.weight[0].chunk(2)
    for w, half, moved in zip(halves, block.embed(x)[:2], block.embed(x + common)[:2], strict=True):
        torch.testing.assert_close(w @ half.flatten(2), w @ moved.flatten(2), rtol=1e-4, atol=1e-4)


def test_pairs_of_a_new_block_are_active() -> None:
    """Of features after a ReLU, with every seed; as MSRA draws them, 17 to 96 % are."""
    for seed in range(20):
        torch.manual_seed(seed)
        block = NonLocalBlock(64, pairwise="concatenation", subsample="none")
        theta, phi, _ = block.embed(torch.randn(4, 64, 8, 8).relu())
        w_theta, w_phi = block.w_f.weight[0].chunk(2)
        pairs = (w_theta @ theta.flatten(2)).unsqueeze(2) + (w_phi @ phi.flatten(2)).unsqueeze(1)
        assert 0.4 < (pairs > 0).float().mean() < 0.6


def test_children_and_keys() -> None:
    expected = {
        "gaussian": ["g", "out"],
        "embedded_gaussian": ["theta", "phi", "g", "out"],
        "dot_product": ["theta", "phi", "g", "out"],
        "concatenation": ["theta", "phi", "g", "w_f", "out"],
    }
    for pairwise, children in expected.items():
        block = NonLocalBlock(8, pairwise=pairwise)
        assert [name for name, _ in block.named_children()] == children
        assert isinstance(block.out.norm, nn.BatchNorm2d)
    assert set(NonLocalBlock(8, norm="").state_dict()) == {
        f"{name}.{kind}" for name in ("theta", "phi", "g", "out") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_parameters(pairwise: str) -> None:
    """The block of the paper's Figure 2: C 1024, d 512, two or four 1x1 convolutions."""
    block = NonLocalBlock(1024, pairwise=pairwise, norm="")
    convolutions = 2 if pairwise == "gaussian" else 4
    biases = (convolutions - 1) * 512 + 1024
    w_f = 1024 if pairwise == "concatenation" else 0
    parameters = sum(p.numel() for p in block.parameters())
    assert parameters == convolutions * 1024 * 512 + biases + w_f


@pytest.mark.parametrize("subsample", SUBSAMPLE)
def test_multiply_adds(subsample: str) -> None:
    """Four convolutions and two products of N x M x d: no position is embedded that is not needed."""
    channels, inner, height, width = 32, 16, 8, 12
    n = height * width
    m = n // 4 if subsample != "none" else n
    embedded = m if subsample == "input" else n
    block = NonLocalBlock(channels, subsample=subsample, norm="").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block(torch.randn(1, channels, height, width))
    expected = (2 * n + 2 * embedded) * channels * inner + 2 * n * m * inner
    assert counter.get_total_flops() == 2 * expected


def test_freeze() -> None:
    block = NonLocalBlock(32).freeze()
    assert not any(p.requires_grad for p in block.parameters())
    assert isinstance(block.out.norm, FrozenBatchNorm2d)
    x = torch.randn(1, 32, 4, 4)
    assert block(x).equal(x)


@pytest.mark.parametrize("norm", ["BN", "GN"])
def test_norm_of_single_values_leaves_no_parameter_without_gradient(norm: str) -> None:
    """Distributed training waits for the gradients of all."""
    block = randomize(NonLocalBlock(32, norm=norm, pairwise="concatenation"))
    z = block(torch.randn(1, 32, 1, 1))
    gradients = torch.autograd.grad(z.sum(), tuple(block.parameters()))
    named = dict(zip(dict(block.named_parameters()), gradients, strict=True))
    assert [name for name, gradient in named.items() if gradient.any()] == ["out.norm.bias"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairwise": "softmax"}, "pairwise must be one of 'gaussian', .*got 'softmax'"),
        ({"subsample": True}, "subsample must be one of 'input', .*got True"),
        ({"dim": 4}, "dim must be one of 1, 2, 3; got 4"),
        ({"reduction": 5}, "reduction must be a positive integer that divides the 32 .*got 5"),
        ({"reduction": 0}, "reduction must be .*got 0"),
        ({"reduction": 2.0}, "reduction must be .*got 2.0"),
        ({"scale": 1}, "scale must be one of True, False; got 1"),
        ({"norm": "LayerNorm"}, "norm must be a norm that .*got 'LayerNorm'"),
        ({"norm": "GN", "in_channels": 48}, "norm must be a norm .* for 48 channels; got 'GN'"),
        ({"in_channels": 0}, "in_channels must be a positive integer; got 0"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NonLocalBlock(**{"in_channels": 32, **arguments})


@pytest.mark.parametrize("dim", SIZES)
def test_input_without_batch_dimension_is_refused(dim: int) -> None:
    """The convolutions would take it, and the channels would then be taken for the batch."""
    with pytest.raises(ValueError, match=rf"the shape of x must be \(batch, channels, and {dim} sizes"):
        NonLocalBlock(8, dim=dim)(torch.randn(8, *SIZES[dim]))
