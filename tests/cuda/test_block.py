"""The block on a GPU against the same block in float64 on the CPU, and what it must not do there."""

import copy
from collections.abc import Iterator

import pytest
import torch
from block_cases import PAIRWISE, SUBSAMPLE, randomize
from half_precision import TOLERANCE, assert_near, run, trained

from nl_detectron import NonLocalBlock
from nl_detectron.layers import kernels

pytestmark = pytest.mark.cuda

CHANNELS = (64, 256, 512, 1024)  # of x; theta has half of them, and flash attention ends at 256
WAYS = ("matrix", "other")


@pytest.fixture(autouse=True)
def _no_tf32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the matrix is taken, or flash attention or some slabs."""
    if request.param == "other":
        monkeypatch.setattr(kernels, "MATRIX_BYTES", 0)
        share = 1e5 / torch.cuda.get_device_properties(0).total_memory
        monkeypatch.setattr(kernels, "MEMORY_SHARE", share)
    return request.param


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_values_and_gradients(pairwise: str, channels: int, dtype: torch.dtype, way: str) -> None:
    block = trained(channels, pairwise=pairwise, norm="GN")
    x, dz = torch.randn(2, 2, channels, 20, 24)
    expected = run(copy.deepcopy(block).double(), x.double(), dz)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        got = run(block.cuda(), x.cuda(), dz)
    assert_near(got, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_a_model_in_half_precision(pairwise: str, dtype: torch.dtype, way: str) -> None:
    """Whose parameters are in it too, without autocast."""
    block = trained(64, pairwise=pairwise, norm="").to(dtype)
    x, dz = torch.randn(2, 2, 64, 20, 24).to(dtype)
    expected = run(copy.deepcopy(block).double(), x.double(), dz)
    assert_near(run(block.cuda(), x.cuda(), dz), expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_batch_of_none(pairwise: str, dtype: torch.dtype, way: str) -> None:
    block = NonLocalBlock(64, pairwise=pairwise, norm="GN").cuda()
    x = torch.randn(0, 64, 14, 14, device="cuda", requires_grad=True)
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        z = block(x)
    z.sum().backward()
    assert z.shape == x.shape
    assert not any(parameter.grad.any() for parameter in block.parameters())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_new_block_is_the_identity(pairwise: str, dtype: torch.dtype, way: str) -> None:
    block = NonLocalBlock(512, pairwise=pairwise).cuda()
    x = 30 * torch.randn(2, 512, 20, 24, device="cuda")
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        assert block(x).equal(x)
        assert block(x.to(dtype)).equal(x.to(dtype))


@pytest.mark.parametrize("factor", [1e3, 1e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_huge_features(pairwise: str, dtype: torch.dtype, factor: float, way: str) -> None:
    """Logits beyond float16 give finite outputs and gradients; the loss is scaled as after an overflow.

    Gradients of fused attention are not (docs/performance.md, Limits).
    """
    block = randomize(NonLocalBlock(64, pairwise=pairwise)).cuda()
    x = (factor * torch.randn(2, 64, 20, 24, device="cuda")).requires_grad_()
    with torch.autocast("cuda", dtype):
        z = block(x)
    assert z.isfinite().all()
    if way == "matrix" or "gaussian" not in pairwise:
        (z.float() * factor**-3).mean().backward()
        assert all(t.isfinite().all() for t in (x.grad, *(p.grad for p in block.parameters())))


def test_logits_up_to_60000_keep_their_softmax_in_float16(way: str) -> None:
    """The products themselves are sqrt(d) times as large."""
    block = NonLocalBlock(512, pairwise="gaussian", subsample="none", norm="").cuda()
    x = torch.zeros(1, 512, 16, 16, device="cuda")
    x[:, 0] = torch.linspace(-1, 1, 256, device="cuda").view(16, 16) * (6e4 * 256**0.5) ** 0.5
    with torch.autocast("cuda", torch.float16):
        theta, phi, g = block.embed(x.half())
        y = block.operate(theta.flatten(2), phi.flatten(2), g.flatten(2))
    # Each position attends to the end on its side of zero.
    ends = torch.where(x[0, 0].flatten() < 0, 0, 255)
    torch.testing.assert_close(y, g.flatten(2)[:, :, ends].to(y.dtype), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_traced_under_autocast(pairwise: str) -> None:
    """With float32 x; on another size."""
    block = trained(64, pairwise=pairwise, norm="").eval().cuda()
    x, other = torch.randn(1, 64, 16, 16, device="cuda"), torch.randn(3, 64, 12, 20, device="cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        traced = torch.jit.trace(block, x)
        assert_near([traced(other) - other], [block(other) - other], TOLERANCE[torch.bfloat16])


@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_nothing_waits_for_the_gpu(pairwise: str, dtype: torch.dtype, subsample: str, way: str) -> None:
    block = randomize(NonLocalBlock(64, pairwise=pairwise, subsample=subsample)).cuda()
    x = torch.randn(2, 64, 20, 24, device="cuda", requires_grad=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            block(x).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_memory_without_the_matrix(pairwise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward hold less than one matrix of 16384 x 16384 positions."""
    monkeypatch.setattr(kernels, "MEMORY_SHARE", 2.0**25 / torch.cuda.get_device_properties(0).total_memory)
    block = NonLocalBlock(256, pairwise=pairwise, subsample="none", norm="").cuda()
    x = torch.randn(1, 256, 128, 128, device="cuda", requires_grad=True)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        block(x).sum().backward()
    assert torch.cuda.max_memory_allocated() - before < 2 * 16384**2


def test_matrix_is_a_share_of_the_memory() -> None:
    """A matrix of 1/16 of the memory is built, a larger one is not."""
    budget = torch.cuda.get_device_properties(0).total_memory // 16
    n = int((budget / 4) ** 0.5)
    for rows, kernel in ((n, "matrix"), (n + 16, "slabs")):
        theta = torch.empty(1, 8, rows, device="cuda")
        assert kernels.select_kernel("softmax", theta, theta, theta) == kernel
