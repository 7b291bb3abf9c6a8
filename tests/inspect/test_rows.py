"""Rows of the matrix against the loops of reference.py, and how far they depend on the position."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from reference import reference_rows
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nl_detectron import NonLocalBlock
from nl_detectron.inspect import attention_rows, query_dependence
from nl_detectron.inspect import rows as rows_module

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


def make_block(pairwise: str = "embedded_gaussian", **options: object) -> NonLocalBlock:
    return NonLocalBlock(8, pairwise=pairwise, **options).double().eval()


@pytest.mark.parametrize("subsample", ["input", "embedding", "none"])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_rows_are_those_of_the_equations(pairwise: str, subsample: str) -> None:
    block = make_block(pairwise, subsample=subsample)
    x = torch.randn(2, 8, 5, 4, dtype=torch.float64)
    positions = torch.tensor([7, 0, 19])
    rows = attention_rows(block, x, positions)
    assert rows.shape == ((2, 3, 5, 4) if subsample == "none" else (2, 3, 2, 2))
    expected = reference_rows(x, block.state_dict(), pairwise=pairwise, subsample=subsample, scale=True)
    torch.testing.assert_close(rows.flatten(2), expected[:, positions])


def test_without_scale() -> None:
    block, x = make_block(scale=False), torch.randn(1, 8, 4, 4, dtype=torch.float64)
    expected = reference_rows(
        x, block.state_dict(), pairwise="embedded_gaussian", subsample="input", scale=False
    )
    torch.testing.assert_close(attention_rows(block, x, torch.arange(16)).flatten(2), expected)


@pytest.mark.parametrize("shape", [(1, 8, 6), (1, 8, 2, 4, 6)], ids=["1-D", "3-D"])
def test_other_dimensions(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    block = make_block(dim=len(shape) - 2)
    expected = reference_rows(
        x, block.state_dict(), pairwise="embedded_gaussian", subsample="input", scale=True
    )
    torch.testing.assert_close(attention_rows(block, x, torch.tensor([3])).flatten(2), expected[:, 3:4])


class LargestTensor(TorchDispatchMode):
    """Notes how many values the largest tensor has that any operation returns."""

    values = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        self.values = max(self.values, out.numel() if isinstance(out, Tensor) else 0)
        return out


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_only_the_rows_asked_for_are_computed(pairwise: str) -> None:
    block, x = make_block(pairwise), torch.randn(1, 8, 64, 64, dtype=torch.float64)
    with LargestTensor() as largest:
        attention_rows(block, x, torch.tensor([5, 6, 7]))
    assert 0 < largest.values <= x.numel()  # the matrix has 4096 x 1024, 128 times as many


def pairs_of_cosines(rows: Tensor) -> float:
    """GCNet's average distance, pair by pair, of rows (N, M)."""
    distances = []
    for one, other in itertools.product(rows, repeat=2):
        zeros = [not row.any() for row in (one, other)]
        cosine = float(all(zeros)) if any(zeros) else F.cosine_similarity(one, other, dim=0).item()
        distances.append((1 - cosine) / 2)
    return sum(distances) / len(distances)


@pytest.mark.parametrize("values_at_a_time", [2**22, 30])
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_query_dependence_is_gcnets_distance(
    pairwise: str, values_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "VALUES_AT_A_TIME", values_at_a_time)
    block, x = make_block(pairwise), 2 * torch.randn(3, 8, 5, 4, dtype=torch.float64)
    rows = reference_rows(x, block.state_dict(), pairwise=pairwise, subsample="input", scale=True)
    expected = sum(map(pairs_of_cosines, rows)) / 3
    assert query_dependence(block, x) == pytest.approx(expected, abs=1e-9)
    assert expected > 0.001


def test_some_rows_of_zeros_are_like_each_other() -> None:
    block, x = make_block("concatenation"), torch.randn(1, 8, 5, 4, dtype=torch.float64)
    torch.nn.init.constant_(block.theta.bias, -1.0)
    rows = reference_rows(x, block.state_dict(), pairwise="concatenation", subsample="input", scale=True)[0]
    assert 0 < (rows == 0).all(1).sum() < 20
    assert query_dependence(block, x) == pytest.approx(pairs_of_cosines(rows))


def test_it_is_0_where_all_positions_attend_alike() -> None:
    block, x = make_block(), torch.randn(1, 8, 6, 6, dtype=torch.float64)
    torch.nn.init.zeros_(block.theta.weight)
    torch.nn.init.ones_(block.theta.bias)
    assert query_dependence(block, x) == pytest.approx(0, abs=1e-12)


def test_it_is_near_one_half_where_each_looks_elsewhere() -> None:
    """Each of 64 positions at itself alone: 1/2 for all pairs but those of a position with itself."""
    block = NonLocalBlock(64, pairwise="gaussian", subsample="none", scale=False).eval()
    x = 30 * torch.eye(64).view(1, 64, 8, 8)
    assert query_dependence(block, x) == pytest.approx(0.5 * 63 / 64)


def test_half_precision_is_computed_in_float32() -> None:
    block, x = NonLocalBlock(8).eval().half(), torch.randn(1, 8, 4, 4).half()
    rows = attention_rows(block, x, torch.tensor([0]))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(), torch.tensor(1.0))
