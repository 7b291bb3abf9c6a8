"""Rows of the matrix against the loops of reference.py, and how far they depend on the position."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from block_cases import PAIRWISE, SUBSAMPLE
from reference import reference_rows
from torch import Tensor

from nl_detectron import NonLocalBlock
from nl_detectron.inspect import attention_rows, query_dependence
from nl_detectron.inspect import rows as rows_module


def make_block(pairwise: str = "embedded_gaussian", **options: object) -> NonLocalBlock:
    return NonLocalBlock(8, pairwise=pairwise, **options).double().eval()


@pytest.mark.parametrize(
    ("shape", "pooled"),
    [((2, 8, 5, 4), (2, 2)), ((1, 8, 6), (6,)), ((1, 8, 2, 4, 6), (2, 2, 3))],
    ids=["2-D", "1-D", "3-D"],
)
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("subsample", SUBSAMPLE)
@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_the_rows_are_those_of_the_equations(
    pairwise: str, subsample: str, scale: bool, shape: tuple[int, ...], pooled: tuple[int, ...]
) -> None:
    options = {"subsample": subsample, "scale": scale}
    block, x = make_block(pairwise, dim=len(pooled), **options), torch.randn(shape, dtype=torch.float64)
    positions = torch.tensor([4, 0, 5])
    rows = attention_rows(block, x, positions)
    assert rows.shape[2:] == (shape[2:] if subsample == "none" else pooled)
    expected = reference_rows(x, block.state_dict(), pairwise=pairwise, **options)[:, positions]
    torch.testing.assert_close(rows.flatten(2), expected)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_only_the_rows_asked_for_are_computed(pairwise: str) -> None:
    """All rows of this map would take 2 TB."""
    x = torch.randn(1, 8, 1024, 1024, dtype=torch.float64)
    assert attention_rows(make_block(pairwise), x, torch.tensor([5, 6, 7])).isfinite().all()


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


def test_half_precision_is_computed_in_float32() -> None:
    block, x = NonLocalBlock(8).eval().half(), torch.randn(1, 8, 4, 4).half()
    rows = attention_rows(block, x, torch.tensor([0]))
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows.sum(), torch.tensor(1.0))
