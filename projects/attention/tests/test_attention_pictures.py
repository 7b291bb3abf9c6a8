"""Heat maps and arrows: what is drawn where, read back from the figure."""

import itertools
from dataclasses import replace

import matplotlib.colors
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from nl_detectron_attention import draw_queries, queries
from nl_detectron_attention.pictures import count_outstanding, strongest
from nl_detectron_attention.queries import Query
from nl_detectron_attention.words import averages, in_words

from nl_detectron import NonLocalBlock
from nl_detectron.inspect import Field, Grid, Observation

IMAGE = np.full((60, 100, 3), 200, np.uint8)


def field(pairwise: str = "embedded_gaussian", detection: int | None = None) -> Field:
    """6 x 10 positions of 10 x 10 pixels, or of 4 x 4 for a detection."""
    torch.manual_seed(1)  # of which dot product has weights of either sign
    block = NonLocalBlock(8, pairwise=pairwise).eval()
    if pairwise == "concatenation":
        torch.nn.init.constant_(block.w_f.weight, 0.5)
        torch.nn.init.constant_(block.theta.bias, -1)  # so that the ReLU leaves a few
    side = 10 if detection is None else 4
    grid = Grid(left=0, top=0, width=side, height=side, rows=6, columns=10, pooled=(2, 2))
    return Field("res4.non_local_1", block, torch.randn(1, 8, 6, 10), grid, detection)


def panels(figure: Figure, query: Query) -> tuple[list[Annotation], np.ndarray]:
    """The arrows of the first panel, and the painted map of the second."""
    arrows = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    return arrows, figure.axes[1].images[1].get_array()


@pytest.mark.parametrize("detection", [None, 0])
def test_large_images_are_drawn_as_small_ones(detection: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer pixels, in the same places: weights, arrows and what is shown of a detection."""
    image = np.zeros((60, 100, 3), np.uint8)
    image[20:40, 30:50] = 255
    one = replace(field(detection=detection), grid=replace(field(detection=detection).grid, left=20, top=10))
    query = Query("", "", 35, 25, one)
    arrows, _ = panels(draw_queries(image, [query]), query)
    monkeypatch.setattr("nl_detectron_attention.pictures.PIXELS", 25)
    figure = draw_queries(image, [query])
    again, painted = panels(figure, query)
    assert [each.xy for each in again] == [each.xy for each in arrows]
    picture, heat = figure.axes[0].images[0], figure.axes[1].images[1]
    assert max(picture.get_array().shape[:2]) <= 25
    left, right, bottom, top = heat.get_extent()
    assert picture.get_extent() == heat.get_extent()
    expected = one.grid.paint(query.weights(), *image.shape[:2])
    across, down = np.linspace(left, right, 100)[5:-5], np.linspace(top, bottom, 100)[5:-5]
    rows = ((down - top) / (bottom - top) * painted.shape[0]).astype(int)
    columns = ((across - left) / (right - left) * painted.shape[1]).astype(int)
    shown = np.ma.filled(painted, np.nan)[np.ix_(rows, columns)]
    true = expected[np.ix_(down.astype(int), across.astype(int))]
    assert np.mean((shown == true) | (np.isnan(shown) & np.isnan(true))) > 0.8  # but for cells' borders


def test_a_large_image_may_be_two_pixels_high() -> None:
    one = field()
    assert draw_queries(np.zeros((2, 5000, 3), np.uint8), [Query("", "", 5, 1, one)]).axes


def test_strongest_is_by_size_and_then_by_place() -> None:
    weights = np.array([[0.1, -0.5], [0.5, 0.0]])
    assert strongest(weights).tolist() == [1, 2, 0, 3]
    assert strongest(np.arange(30.0).reshape(5, 6)).tolist() == list(range(29, 9, -1))


def test_positions_stand_out_above_twice_the_share_of_a_uniform_map() -> None:
    assert count_outstanding(np.full((4, 5), 0.05)) == 0
    assert count_outstanding(np.zeros((4, 5))) == 0
    weights = np.ones((2, 5))
    weights[0, :2] = 2.5, -2.6  # twice their mean |weight| is 2.62
    assert count_outstanding(weights) == 0
    weights[0, :2] = 0.5, -2.6  # and here 2.22
    assert count_outstanding(weights) == 1
    assert count_outstanding(np.r_[np.ones(30), np.zeros(300)]) == 20


def test_sentences() -> None:
    assert in_words(0.24, 0.31) == (
        "This block changes x by 31.0 %, and positions attend to different places (query dependence 0.24)."
    )
    assert in_words(0.24, 0.007) == "This block changes x by 0.7 %: its map says little."
    alike = "This map is nearly the same for every position (query dependence 0.04)."
    assert in_words(0.04, 0.31) == alike
    assert in_words(0.04, 0.0) == f"This block changes x by 0.0 %: its map says little. {alike}"


def test_averages_are_those_of_the_fields_of_a_block() -> None:
    fields = [field(detection=0), field(detection=1)]
    torch.nn.init.ones_(fields[1].block.out.norm.weight)
    ((name, (dependence, change)),) = averages(fields).items()
    assert name == "res4.non_local_1"
    assert dependence == pytest.approx(fields[0].query_dependence)  # the same maps
    assert change == pytest.approx(fields[1].change / 2)
    assert change > 0


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product", "concatenation"])
def test_arrows_go_to_the_strongest_and_the_map_is_painted(pairwise: str) -> None:
    query = Query("point", "", 35.5, 25.5, field(pairwise))
    figure = draw_queries(IMAGE, [query])
    arrows, painted = panels(figure, query)
    weights = query.weights()
    expected = {}
    shares = np.abs(weights).flatten() / np.abs(weights).sum()
    for j in np.flatnonzero(shares > 2 / len(shares)).tolist():
        row, column = divmod(j, 5)
        expected[20 * column + 10, 20 * row + 10] = weights.flat[j]
    assert expected
    assert {arrow.xy for arrow in arrows} == set(expected)
    assert all(arrow.xyann == (35.5, 25.5) for arrow in arrows)
    blue = matplotlib.colors.to_rgb("deepskyblue")
    for arrow in arrows:
        assert (arrow.arrow_patch.get_edgecolor()[:3] == blue) == (expected[arrow.xy] < 0)
    np.testing.assert_array_equal(painted, np.kron(weights, np.ones((20, 20))))
    assert (weights < 0).any() == (pairwise == "dot_product")
    title = figure.axes[1].get_title()
    assert ("alike for all" in title) == (pairwise == "embedded_gaussian")
    assert f"{weights.flat[np.abs(weights).argmax()]:.2g}" in title
    opacity = figure.axes[1].images[1].get_alpha()
    assert opacity.flat[np.abs(painted).argmax()] == pytest.approx(0.8)
    assert opacity.flat[np.abs(painted).argmin()] < 0.5


def test_the_picture_of_a_detection_is_its_box() -> None:
    query = Query("person 1", "nose", 22, 10, field(detection=0))
    figure = draw_queries(IMAGE, [query, query])
    for panel in figure.axes[:4]:
        assert panel.get_xlim() == (0, 44)  # 10 positions of 4 pixels, and a tenth around
        assert panel.get_ylim() == (pytest.approx(26.4), 0)


def test_a_point_in_two_detections_has_a_picture_for_each() -> None:
    seen = Observation(IMAGE, None, [field(detection=0), field(detection=1), field()])
    groups = [query.group for query in queries.at_point(seen, 5, 6)]
    assert groups == ["point 5,6 in detection 1", "point 5,6 in detection 2", "point 5,6"]


def test_weights_of_zero_are_drawn() -> None:
    seen = field("concatenation")
    torch.nn.init.zeros_(seen.block.w_f.weight)
    query = Query("point", "", 5, 5, seen)
    figure = draw_queries(IMAGE, [query])
    arrows, painted = panels(figure, query)
    assert (painted == 0).all()
    assert arrows == []
    assert figure.axes[0].get_title() == "point\nno position stands out"


@pytest.mark.parametrize(
    ("shape", "count"), [((60, 100), 1), ((300, 60), 1), ((300, 60), 7), ((60, 900), 1), ((60, 900), 3)]
)
def test_titles_neither_overlap_nor_leave_the_picture(shape: tuple[int, int], count: int) -> None:
    seen = field(detection=0)
    grid = Grid(0, 0, shape[1] / 10, shape[0] / 6, rows=6, columns=10, pooled=(2, 2))
    seen = replace(seen, name="roi_heads.keypoint_head.non_local_8", grid=grid)
    names = [f"left_ankle_of_a_long_name_{k}" for k in range(count)]
    image = np.full((*shape, 3), 200, np.uint8)
    figure = draw_queries(image, [Query("person of interest 12", name, 5, 5, seen) for name in names])
    figure.draw_without_rendering()
    titles = [panel.title for panel in figure.axes if panel.get_visible() and panel.get_title()]
    boxes = [title.get_window_extent() for title in [*titles, figure._suptitle]]
    assert len(boxes) == 2 * count + 1
    for box in boxes:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
    shown = " ".join(figure._suptitle.get_text().split())
    assert shown.endswith(in_words(seen.query_dependence, seen.change))


def test_many_queries_have_a_pair_of_panels_each() -> None:
    seen = field()
    figure = draw_queries(IMAGE, [Query("person 1", str(k), 5 * k, 9, seen) for k in range(17)])
    titles = [panel.get_title() for panel in figure.axes if panel.get_visible()]
    assert sum(title.startswith("person 1 ") for title in titles) == 17
    assert sum(title.startswith("largest ") for title in titles) == 17
