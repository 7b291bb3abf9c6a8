"""The block in half precision, as a graph, and in every memory format."""

import copy
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from block_cases import PAIRWISE, STRIDES, randomize
from half_precision import TOLERANCE, as_on_a_gpu, assert_near, run, trained

from nl_detectron import NonLocalBlock

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = {1: (7,), 2: (5, 4), 3: (2, 3, 4)}
LAYOUTS = ("contiguous", "channels last")
HALF = (torch.bfloat16, torch.float16)
GPU = SimpleNamespace(total_memory=300_000)  # some slabs of these blocks are kept, others computed again
HALF_KERNELS = [
    *product(("gaussian", "embedded_gaussian"), ("matrix", "fused", "slabs")),
    *product(("dot_product",), ("matrix", "associative")),
    *product(("concatenation",), ("matrix", "slabs")),
]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian"])
def test_half_precision_accumulates_the_softmax_in_float32(pairwise: str, dtype: torch.dtype) -> None:
    """x . x overflows float16 at 65504 and loses its digits in bfloat16; here it does neither."""
    block = randomize(NonLocalBlock(64, pairwise=pairwise, norm="")).eval()
    x = (100 * torch.randn(1, 64, 6, 6)).to(dtype)
    assert (x.float().square().sum(1) > 65504).all()
    half = block.to(dtype)(x)
    assert half.isfinite().all()
    expected = block.float()(x.float())
    relative_error = (half.float() - expected).abs().max() / expected.abs().max()
    assert relative_error < 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_autocast(pairwise: str) -> None:
    block = randomize(NonLocalBlock(16, pairwise=pairwise)).eval()
    x = torch.randn(2, 16, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x)
    assert out.dtype == torch.float32  # x is added in its own precision
    residual, expected = out - x, block(x) - x
    assert (residual - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("pairwise", "kernel"), HALF_KERNELS)
def test_products_in_half_precision(
    pairwise: str, kernel: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arithmetic of GPUs, on the CPU; tests/cuda has the same there, for more channels."""
    block = trained(64, pairwise=pairwise, norm="GN")
    x, dz = torch.randn(2, 2, 64, 20, 24)
    expected = run(copy.deepcopy(block).double(), x.double(), dz)
    as_on_a_gpu(monkeypatch, kernel)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: GPU)  # which slabs ask
    with torch.autocast("cpu", dtype):
        assert_near(run(block, x, dz), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("pairwise", "kernel"), HALF_KERNELS)
def test_huge_features_in_half_precision(
    pairwise: str, kernel: str, dtype: torch.dtype, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `test_huge_features`, as GPUs multiply. Gradients of fused attention are an exception."""
    as_on_a_gpu(monkeypatch, kernel)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: GPU)
    block = randomize(NonLocalBlock(16, pairwise=pairwise))
    x = (factor * torch.randn(2, 16, 12, 12)).requires_grad_()
    with torch.autocast("cpu", dtype):
        z = block(x)
    assert z.isfinite().all()
    if kernel != "fused":
        (z.float() * factor**-3).mean().backward()
        assert all(t.isfinite().all() for t in (x.grad, *(p.grad for p in block.parameters())))


def test_a_norm_that_sums_in_the_precision_of_its_input_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2's naiveSyncBN with several processes, in bfloat16."""
    block = NonLocalBlock(8, norm="naiveSyncBN").train()
    seen = []
    monkeypatch.setattr(block.out.norm, "forward", lambda out: seen.append(out.dtype) or out)
    with torch.autocast("cpu", torch.bfloat16):
        block(torch.randn(2, 8, 6, 6))
    assert seen == [torch.float32]


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_tracing_and_exporting_under_autocast(pairwise: str) -> None:
    """With float32 x."""
    block = randomize(NonLocalBlock(8, pairwise=pairwise)).eval()
    x, other = torch.randn(1, 8, 6, 6), torch.randn(2, 8, 8, 4)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        expected = block(other) - other
        traced = torch.jit.trace(block, x)
        assert (traced(other) - other - expected).norm() < 0.03 * expected.norm()
        exported = torch.export.export(block, (other,)).module()
        assert (exported(other) - other - expected).norm() < 0.03 * expected.norm()


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_scripting_and_tracing(pairwise: str) -> None:
    """A graph has the way that suits all sizes, so that sums may be rounded in another order."""
    block = randomize(NonLocalBlock(8, pairwise=pairwise)).eval()
    x, other = torch.randn(1, 8, 5, 6, requires_grad=True), torch.randn(2, 8, 7, 4)
    z, scripted = block(x), torch.jit.script(block)(x)
    torch.testing.assert_close(scripted, z, rtol=1e-5, atol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), x) for out in (scripted, z)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.trace(block, x)(other), block(other), rtol=1e-5, atol=1e-5)


def test_concatenation_for_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX has no searchsorted: its graph has the matrix instead."""
    block = randomize(NonLocalBlock(8, pairwise="concatenation")).eval()
    x, other = torch.randn(1, 8, 5, 6), torch.randn(2, 8, 7, 4)
    with torch.no_grad():
        assert "aten::searchsorted" in str(torch.jit.trace(block, x).inlined_graph)
        monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
        traced = torch.jit.trace(block, x)
        assert "aten::searchsorted" not in str(traced.inlined_graph)
        torch.testing.assert_close(traced(other), block(other), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_compiling(pairwise: str) -> None:
    """As one graph for all sizes."""
    torch._dynamo.reset()
    block = randomize(NonLocalBlock(8, pairwise=pairwise)).eval()
    compiled = torch.compile(block, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for x in (torch.randn(1, 8, 5, 6), torch.randn(2, 8, 7, 4)):
            torch.testing.assert_close(compiled(x), block(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
@pytest.mark.parametrize(("dim", "side"), [(2, 40), (2, 6), (3, 6)], ids=["large", "small", "video"])
def test_channels_last_stays(pairwise: str, dim: int, side: int, training: bool) -> None:
    """In and out, and in the gradient; with the values that the usual layout has."""
    layout = torch.channels_last if dim == 2 else torch.channels_last_3d
    block = randomize(NonLocalBlock(8, pairwise=pairwise, dim=dim, norm="")).train(training)
    x = torch.randn(2, 8, *[side] * dim)
    last = x.to(memory_format=layout).requires_grad_()
    z = block(last)
    assert z.is_contiguous(memory_format=layout)
    torch.testing.assert_close(z, block(x), rtol=1e-4, atol=1e-4)
    z.square().sum().backward()
    assert last.grad.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("layout_of_dz", LAYOUTS)
@pytest.mark.parametrize("layout_of_x", LAYOUTS)
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN"])
@pytest.mark.parametrize("dim", SIZES)
def test_gradients_of_mixed_layouts(
    dim: int, norm: str, batch: int, layout_of_x: str, layout_of_dz: str
) -> None:
    """PyTorch's batch norm has wrong ones for some strides of the two."""
    block = randomize(NonLocalBlock(32, dim=dim, norm=norm)).double()
    x, dz = torch.randn(2, batch, 32, *SIZES[dim], dtype=torch.float64)
    x.requires_grad_()
    inputs = (x, *block.parameters())
    expected = torch.autograd.grad(block(x), inputs, dz)
    gradients = torch.autograd.grad(block(STRIDES[layout_of_x](x)), inputs, STRIDES[layout_of_dz](dz))
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_huge_features(pairwise: str, dtype: torch.dtype, factor: float) -> None:
    """Features of some thousands give logits beyond float16, and finite outputs and gradients all the same.

    The loss is scaled down, as a gradient scaler would after its first overflow.
    """
    block = randomize(NonLocalBlock(16, pairwise=pairwise, norm=""))
    x = (factor * torch.randn(2, 16, 12, 12)).requires_grad_()
    with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
        z = block(x)
    assert z.isfinite().all()
    (z.float() * factor**-3).mean().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in block.parameters())
