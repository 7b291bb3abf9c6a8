"""Where positions lie in the image, against rectangles counted by hand and pixel by pixel."""

import numpy as np
import pytest

from nl_detectron.inspect import Grid

# 3 x 5 positions of 10 x 4 pixels, pooled 2 x 2 to 1 x 2, from (1, 2) on.
GRID = Grid(left=1, top=2, width=10, height=4, rows=3, columns=5, pooled=(2, 2))


@pytest.mark.parametrize(
    ("x", "y", "position"),
    [
        *[(1, 2, 0), (10.9, 5.9, 0), (11, 2, 1), (1, 6, 5), (50.9, 13.9, 14)],
        *[(0.9, 2, None), (1, 1.9, None), (51, 2, None), (1, 14, None)],
    ],
)
def test_position_at(x: float, y: float, position: int | None) -> None:
    assert GRID.position_at(x, y) == position


def test_a_border_belongs_to_the_position_after_it() -> None:
    """Also where the sides are no round numbers: 320 is the border of 9 positions of 16 * 640 / 288."""
    grid = Grid(left=0, top=0, width=16 * 640 / 288, height=9, rows=1, columns=18, pooled=(1, 1))
    assert grid.position_at(320, 1) == 9
    grid = Grid(left=0, top=0, width=4 * 612 / 800, height=9, rows=1, columns=200, pooled=(1, 1))
    assert grid.position_at(76.5, 1) == 25  # the middle of pixel 76
    assert grid.paint(np.arange(200.0)[None], 1, 612)[0, 76] == 25


def test_the_middle_of_pooled_positions() -> None:
    assert GRID.pooled_centre(0) == (11, 6)
    assert GRID.pooled_centre(1) == (31, 6)  # of positions 2, 3 and 7, 8


@pytest.mark.parametrize("pooled", [(1, 1), (2, 2), (1, 2)])
def test_paint_pixel_by_pixel(pooled: tuple[int, int]) -> None:
    """A map that begins left of the image and ends above its last row, with an odd column."""
    grid = Grid(left=-3.3, top=1.7, width=7.9, height=5.3, rows=6, columns=7, pooled=pooled)
    weights = np.random.default_rng(0).random((6 // pooled[0], 7 // pooled[1]))
    painted = grid.paint(weights, height=40, width=50)
    for y in range(40):
        for x in range(50):
            i = grid.position_at(x + 0.5, y + 0.5)
            row, column = (-1, -1) if i is None else (i // 7 // pooled[0], i % 7 // pooled[1])
            is_covered = i is not None and row < len(weights) and column < weights.shape[1]
            expected = weights[row, column] if is_covered else np.nan
            np.testing.assert_equal(painted[y, x], expected)
