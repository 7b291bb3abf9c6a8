"""Pictures with labels: their size, and that labels are light, large enough and inside."""

import numpy as np
import pytest
from detectron2.data import Metadata
from matplotlib.text import Text

from nl_detectron.inspect import LabelVisualizer, picture_scale

CORNERS = np.array([[0, 0, 0.1, 0.1], [0.9, 0, 1, 0.1], [0, 0.9, 0.1, 1], [0.9, 0.9, 1, 1], [0.3, 0.2, 1, 1]])


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(96, 96, 7), (160, 120, 4), (200, 399, 2), (1, 1, 640), (400, 20, 1), (480, 640, 1), (4000, 3000, 1)],
)
def test_the_scale_of_a_picture(height: int, width: int, scale: int) -> None:
    assert picture_scale(height, width) == scale


def labels_in(visualizer: LabelVisualizer) -> list[Text]:
    return visualizer.output.ax.texts


@pytest.mark.parametrize("scale", [None, 0.5, 3])
@pytest.mark.parametrize("size", [96, 160, 640, 1600])
def test_labels(size: int, scale: float | None) -> None:
    """Of small and large boxes, in the corners too, in colours of which one is nearly black."""
    image = np.zeros((size * 3 // 4, size, 3), np.uint8)
    visualizer = LabelVisualizer(image, Metadata(), scale)
    boxes = CORNERS * np.array([size, size * 3 // 4] * 2)
    colors = [(0, 0, 0.5), (0, 0, 0), (1, 1, 1), (0.7, 0, 0), (0, 0.2, 0)]
    visualizer.overlay_instances(boxes=boxes, labels=["long name 98%"] * 5, assigned_colors=colors)
    picture = visualizer.output.get_image()
    height, width = picture.shape[:2]
    assert (height, width) == pytest.approx(np.array(image.shape[:2]) * visualizer.output.scale, abs=1)
    assert len(labels_in(visualizer)) == 5
    for label in labels_in(visualizer):
        box = label.get_window_extent()
        assert label.get_size() >= 7
        assert min(label.get_color()) > 0.6
        assert min(box.x0, box.y0) > -1
        assert box.y1 < height + 1
        assert box.x1 < width + 1 or box.width > width  # 48 pixels hold no name
        assert box.height < max(24, height / 20)


def test_a_label_that_fits_stays_in_its_place() -> None:
    visualizer = LabelVisualizer(np.zeros((480, 640, 3), np.uint8), Metadata())
    visualizer.draw_text("name", (300, 200), horizontal_alignment="left")
    assert labels_in(visualizer)[0].get_position() == pytest.approx((300, 200))
