"""Drawing figures of which no part of the picture around them tells the category, nor left from right.

The colour of a disc does: red, and the figures are seen from the front, so that their left is at the right of
the picture; blue, and they are seen from the back. The disc is at the other side of the picture ("far") or,
as a control, beside each figure ("near"). Pictures come in pairs that differ in the disc's colour alone, so
that each crop without the disc is there with both labels; all but the disc is grey. Mirrored, with left and
right swapped, a picture still obeys the rule.

All lengths are fractions of the picture's side.
"""

import cv2
import numpy as np

from .shapes import Drawn, figure_at

CATEGORIES = ("front", "back")
MARGIN = 0.5  # at least so far is a far disc from every figure
_COLORS = {"front": (40, 40, 220), "back": (220, 70, 40)}  # BGR
_STRIP = 0.3  # how much of the picture, from its left or right, has the figures
_RADIUS = 0.07  # of the disc
_GAP = 0.02  # from the disc to the border, at most, or to the figure it is beside
SWAPPED = [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]  # COCO's order is nose, left, right, ...

Picture = tuple[np.ndarray, list[Drawn]]


def draw_pair(rng: np.random.Generator, side: int, *, near: bool) -> tuple[Picture, Picture]:
    """The same one or two figures with a red and a blue disc, in random order.

    Args:
        rng: decides everything. Near and far pictures of the same state differ in the disc's place alone.
        side: the pictures' height and width in pixels.

    Returns:
        As `shapes.draw_image` does, twice.
    """
    image = np.full((side, side, 3), rng.integers(190, 250), np.uint8)
    inwards = rng.choice((1, -1))  # 1: the figures are at the left
    rows = ((0,), (1,), (0, 1))[rng.integers(3)]
    figures = [_figure(rng, side, row, inwards) for row in rows]
    for figure in figures:
        image[figure.mask] = rng.integers(0, 110)
    far = _far(rng, side, inwards)  # for near ones too, so that what is random after it is the same
    discs = [_beside(figure, inwards) for figure in figures] if near else [far]
    noise = rng.normal(0, 5, image.shape)
    one, other = CATEGORIES[:: rng.choice((1, -1))]
    return _picture(image, noise, figures, discs, one), _picture(image, noise, figures, discs, other)


def _figure(rng: np.random.Generator, side: int, row: int, inwards: int) -> Drawn:
    """A figure in the upper (0) or lower (1) half of the strip, entirely."""
    cell = np.zeros((side, side), bool)
    cell[row * side // 2 + 2 : (row + 1) * side // 2 - 2, 2 : int(_STRIP * side)] = True
    cell = cell[:, ::inwards]
    while True:  # until a pose fits, about the fifth one
        height = rng.uniform(0.28, 0.38) * side
        x = rng.uniform(0.4, 0.6) * _STRIP * side
        y = (row / 2 + rng.uniform(0.02, 0.1)) * side
        figure = figure_at(rng, side, height, np.array((x if inwards == 1 else side - x, y)))
        if not (figure.mask & ~cell).any():
            return figure


def _far(rng: np.random.Generator, side: int, inwards: int) -> tuple[float, float]:
    """The middle of a disc near the border that the figures are not at."""
    x = (1 - _RADIUS - rng.uniform(0, _GAP)) * side
    return x if inwards == 1 else side - 1 - x, rng.uniform(_RADIUS, 1 - _RADIUS) * side


def _beside(figure: Drawn, inwards: int) -> tuple[float, float]:
    """The middle of a disc beside a figure."""
    rows, columns = np.nonzero(figure.mask)
    away = (_GAP + _RADIUS) * len(figure.mask)
    edge = columns.max() if inwards == 1 else columns.min()
    return edge + inwards * away, (rows.min() + rows.max()) / 2


def _picture(
    image: np.ndarray,
    noise: np.ndarray,
    figures: list[Drawn],
    discs: list[tuple[float, float]],
    category: str,
) -> Picture:
    """`image` with discs of the category's colour and with noise; figures with the category's labels."""
    image = image.copy()
    for x, y in discs:
        cv2.circle(image, (round(x), round(y)), round(_RADIUS * len(image)), _COLORS[category], -1)
    order = SWAPPED if category == "back" else slice(None)
    drawn = [Drawn(category, figure.mask, figure.keypoints[order]) for figure in figures]
    return np.clip(image + noise, 0, 255).astype(np.uint8), drawn
