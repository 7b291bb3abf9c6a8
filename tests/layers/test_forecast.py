"""The forecast against what is counted, kept and held when a block runs."""

import pytest
import torch
from benchmarking.measure import operation_counter, peak_memory
from torch.autograd.graph import saved_tensors_hooks

from nl_detectron import NonLocalBlock
from nl_detectron.layers import forecast_block

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SUBSAMPLE = ("input", "embedding", "none")
CPU = torch.device("cpu")
LARGE, SMALL = (1, (50, 50)), (4, (14, 14))


def kept_bytes(block: NonLocalBlock, x: torch.Tensor) -> int:
    """Of all that autograd keeps but x and the block's own tensors, once each."""
    known = {t.untyped_storage().data_ptr() for t in [*block.parameters(), *block.buffers(), x]}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        z = block(x)
    assert z.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize(("batch", "size"), [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("norm", ["BN", "GN", "FrozenBN", ""])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_kept_for_the_gradients(
    pairwise: str, subsample: str, norm: str, batch: int, size: tuple[int, int]
) -> None:
    """To half a percent: the statistics of a norm, and w_f, are not counted."""
    block = NonLocalBlock(64, pairwise=pairwise, subsample=subsample, norm=norm)
    x = torch.randn(batch, 64, *size, requires_grad=True)
    forecast = forecast_block(block, batch, size, training=True)
    assert forecast.kept == pytest.approx(kept_bytes(block, x), rel=5e-3)


@pytest.mark.parametrize(("dim", "size"), [(1, (60,)), (3, (4, 9, 12))])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
def test_kept_in_other_dimensions(subsample: str, dim: int, size: tuple[int, ...]) -> None:
    block = NonLocalBlock(32, dim=dim, subsample=subsample)
    x = torch.randn(2, 32, *size, requires_grad=True)
    kept = forecast_block(block, 2, size, training=True).kept
    assert kept == pytest.approx(kept_bytes(block, x), rel=5e-3)


@pytest.mark.parametrize(("batch", "size"), [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_multiply_adds_and_peak(pairwise: str, subsample: str, batch: int, size: tuple[int, int]) -> None:
    """The sums of "sorted" are multiply-adds that a counter of products does not see: below 2 %.

    The peak has the buffers of PyTorch's kernels in it, and in training it depends on when autograd lets go
    of what: it is forecast to within a quarter, and a third.
    """
    block = NonLocalBlock(64, pairwise=pairwise, subsample=subsample)
    x = torch.randn(batch, 64, *size, requires_grad=True)

    def run(x: torch.Tensor, training: bool) -> None:
        block.train(training)
        with torch.set_grad_enabled(training):
            z = block(x)
        if training:
            z.backward(torch.ones_like(z))
            block.zero_grad()

    for training, tolerance in ((False, 1 / 4), (True, 1 / 3)):
        forecast = forecast_block(block, batch, size, training)
        with operation_counter() as counter:
            run(x, training)
        assert forecast.multiply_adds == pytest.approx(counter.get_total_flops() / 2, rel=0.02)
        # As in a model, x is not a leaf: its gradient is not copied.
        peak = peak_memory(lambda t=training: run(x.expand_as(x), t), CPU)
        assert forecast.peak == pytest.approx(peak, rel=tolerance)


def test_nothing_in_an_empty_batch() -> None:
    for training in (False, True):
        assert forecast_block(NonLocalBlock(32), 0, (14, 14), training) == (0, 0, 0)
