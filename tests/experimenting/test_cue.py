"""How much of the weights lies on the disc."""

import numpy as np
import pytest
from experimenting.cue import Look, disc_of, look, middle

from nl_detectron.attention import Grid
from nl_detectron.data import far


class StandIn:
    """A field of 4 x 4 positions of 8 pixels, pooled to 2 x 2, whose rows are given."""

    def __init__(self, weights: list[list[float]]) -> None:
        self.grid = Grid(0, 0, 8, 8, 4, 4, (2, 2))
        self.weights = np.array(weights)

    def rows(self, positions: list[int]) -> np.ndarray:
        assert positions == [5]
        return self.weights[None]


def disc_at(rows: slice, columns: slice) -> np.ndarray:
    disc = np.zeros((32, 32), bool)
    disc[rows, columns] = True
    return disc


@pytest.mark.parametrize(
    ("disc", "expected"),
    [
        (disc_at(slice(20, 24), slice(2, 9)), Look(0.4, 0.25, False)),  # within one position
        (disc_at(slice(20, 24), slice(12, 20)), Look(0.9, 0.5, True)),  # in two
        (disc_at(slice(15, 17), slice(15, 17)), Look(1.0, 1.0, True)),  # in all
    ],
)
def test_the_share_of_the_positions_that_the_disc_reaches(disc: np.ndarray, expected: Look) -> None:
    assert look(StandIn([[0.1, 0.0], [0.4, 0.5]]), 5, disc) == pytest.approx(expected)


def test_signs_do_not_count() -> None:
    """Those of dot product: 3 of 4 in size."""
    seen = look(StandIn([[0.5, 0.0], [-3.0, 0.5]]), 5, disc_at(slice(20, 24), slice(2, 9)))
    assert seen == pytest.approx(Look(0.75, 0.25, True))


@pytest.mark.parametrize("near", [False, True])
def test_the_disc_is_all_that_is_not_grey(near: bool) -> None:
    """Its area is that of as many circles as there are discs: one for each figure if near."""
    for seed in range(5):
        for image, drawn in far.draw_pair(np.random.default_rng(seed), 256, near=near):
            discs = len(drawn) if near else 1
            radius = round(0.07 * 256)
            assert disc_of(image).sum() == pytest.approx(discs * np.pi * radius**2, rel=0.05)


def test_middle() -> None:
    assert middle([10.0, 20.0, 4.0, 6.0]) == (12.0, 23.0)
