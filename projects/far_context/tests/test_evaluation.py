"""What is made of detections and of attention weights: against pictures that were drawn for it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode, Instances
from far_context.evaluation import Evaluation, attend, decide, disc_at, disc_of, positions_on, share_of
from far_context.labels import SWAPPED

from nl_detectron.inspect import Grid


class StandIn:
    """A field of 4 x 4 positions of 8 pixels, pooled to 2 x 2, whose rows are given."""

    def __init__(self, rows: np.ndarray | None) -> None:
        self.grid = Grid(0, 0, 8, 8, 4, 4, (2, 2))
        self.weights = rows

    def rows(self, positions: Sequence[int]) -> np.ndarray:
        return self.weights[list(positions)]


def image_with(rows: slice, columns: slice, color: tuple[int, int, int]) -> np.ndarray:
    image = np.full((32, 32, 3), 200, np.uint8)
    image[rows, columns] = color
    return image


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [
        (slice(2, 4), slice(2, 4), [[1, 0], [0, 0]]),  # 12 pixels from its neighbours
        (slice(2, 4), slice(6, 8), [[1, 0], [0, 0]]),  # 9 pixels from the one at its right
        (slice(2, 4), slice(7, 9), [[1, 1], [0, 0]]),  # 8 pixels, the stride
        (slice(15, 17), slice(15, 17), [[1, 1], [1, 1]]),
    ],
)
def test_positions_on_the_disc(rows: slice, columns: slice, expected: list[list[int]]) -> None:
    """Each covers 16 x 16 pixels."""
    disc = disc_of(image_with(rows, columns, (0, 0, 255)))
    assert positions_on(StandIn(None), disc).astype(int).tolist() == expected


def test_the_share_of_the_weights() -> None:
    """By size: of -3 and 1 three quarters. A row of zeros, as ReLU may leave, attends to nothing."""
    where = np.array([[True, False], [False, False]])
    rows = np.array([[[0.2, 0.3], [0.5, 0.0]], [[-3.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    assert share_of(rows, where).tolist() == pytest.approx([0.2, 0.75, 0.0])


@pytest.mark.parametrize(("color", "red"), [((40, 40, 220), True), ((220, 70, 40), False)])
def test_attention_to_the_disc(color: tuple[int, int, int], red: bool) -> None:
    """A figure in the upper right: position 3, whose row alone is on the disc in the lower left."""
    rows = np.full((16, 2, 2), 0.25)
    rows[3] = [[0, 0], [0.9, 0.1]]
    image = image_with(slice(26, 30), slice(2, 6), color)
    (found,) = attend(StandIn(rows), [{"bbox": [25, 1, 5, 5]}], image)
    assert found == pytest.approx((red, 0.9, (15 * 0.25 + 0.9) / 16, 0.25))


@pytest.mark.parametrize("first_row", [16, 22])
def test_each_figure_has_its_own_disc(first_row: int) -> None:
    """Above and below the middle, or from the middle on; a single one, also across it, is everybody's."""
    two = image_with(slice(4, 8), slice(2, 6), (40, 40, 220))
    two[first_row : first_row + 5, 3:7] = (220, 70, 40)
    one = image_with(slice(13, 18), slice(2, 6), (40, 40, 220))
    for y, rows in ((3, slice(16)), (15.9, slice(16)), (16, slice(16, 32)), (30, slice(16, 32))):
        expected = np.zeros((32, 32), bool)
        expected[rows] = disc_of(two)[rows]
        assert np.array_equal(disc_at(y, two), expected)
        assert np.array_equal(disc_at(y, one), disc_of(one))
    upper = image_with(slice(4, 8), slice(2, 6), (40, 40, 220))
    assert np.array_equal(disc_at(30, upper), disc_of(upper))


def detections(*found: tuple[list[float], float, int]) -> Instances:
    boxes, scores, classes = zip(*found, strict=True) if found else ([], [], [])
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor(boxes).reshape(-1, 4)),
        scores=torch.tensor(scores),
        pred_classes=torch.tensor(classes, dtype=torch.long),
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([([10.0, 10, 20, 30], 0.9, 1)], 1),
        ([([10.0, 10, 20, 30], 0.9, 0)], 0),
        ([([10.0, 10, 20, 30], 0.9, 0), ([10.0, 10, 20, 29], 0.95, 1)], 1),  # the most confident one
        ([([50.0, 10, 60, 30], 0.99, 0), ([10.0, 12, 20, 30], 0.2, 1)], 1),  # that is the figure
        ([([10.0, 10, 20, 15], 0.9, 1)], None),  # an IoU of a quarter
        ([], None),
    ],
)
def test_decisions(found: list[tuple], expected: float | None) -> None:
    figure = {"bbox": [10, 10, 10, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1}
    assert decide(detections(*found), figure) == expected


@pytest.mark.parametrize(
    ("share", "expected"), [(0, 1), (0.4, 1), (0.47, 0.5), (0.5, 0.5), (0.53, 0.5), (0.6, 0), (1, 0)]
)
def test_left_and_right(share: float, expected: float) -> None:
    """Of keypoints on the way from a figure's own to those with left and right swapped. Close to the middle,
    where a left and a right arm are at one place, they are undecided.
    """
    points = np.random.default_rng(0).uniform(10, 30, (17, 3))
    found = detections(([10.0, 10, 20, 30], 0.9, 0))
    found.pred_keypoints = torch.from_numpy((1 - share) * points + share * points[SWAPPED])[None]
    figure = {"bbox": [10, 10, 10, 20], "bbox_mode": BoxMode.XYWH_ABS, "keypoints": points.flatten().tolist()}
    assert decide(found, figure) == expected


@pytest.mark.parametrize(
    ("right", "right_share", "told_apart"),
    [
        ([[1], [0]], 50, 0),  # the same in both pictures
        ([[1], [1]], 100, 100),
        ([[0], [0]], 0, 100),  # the colors the wrong way round
        ([[1, 1], [1, 0]], 75, 50),
        ([[None], [1]], 50, 0),
        ([[None], [None]], 0, 0),
        ([[0.5], [0.5]], 50, 0),
        ([[0.5], [1]], 75, 0),
    ],
)
def test_pairs(right: list[list[float | None]], right_share: float, told_apart: float) -> None:
    seen = Evaluation(right)
    assert (seen.right_share(), seen.told_apart_share()) == (right_share, told_apart)


def test_right_where_the_figures_differ() -> None:
    """A model that sees all colors, but not whose they are, guesses there."""
    seen = Evaluation([[1, 1], [1, 1], [1, 0], [None, 1]], [False, False, True, True])
    assert seen.right_share() == 75
    assert seen.right_share_where_they_differ() == 50
    assert np.isnan(Evaluation([[1]], [False]).right_share_where_they_differ())


def test_shares_and_means() -> None:
    """Named as the tables name them; weights are means over the figures with a red and with a blue disc."""
    figures = [(True, 0.5, 0.2, 0.1), (True, 0.7, 0.2, 0.1), (False, 1.0, 0.4, 0.4)]
    seen = Evaluation([[1], [0]], [False, False], {"res4": figures}, {"res4": [0.25, 0.75]})
    assert seen.shares() == {"right": 50, "told apart": 0}
    assert replace(seen, differ=[True, False]).shares()["right where the two differ"] == 100
    expected = {"on a red disc, %": 60, "red: from everywhere": 20, "on a blue disc, %": 100}
    expected |= {"blue: from everywhere": 40, "if all were alike": 20, "query dependence": 0.5}
    assert seen.attention_means() == {"res4": pytest.approx(expected)}
