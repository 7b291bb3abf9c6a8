"""The far and near pictures: figures whose category, and whose left and right, only a disc tells.

The figures look the same from both sides, and all but the disc is grey. A red disc means that they are seen
from the front, so that their left is at the right of the picture; a blue one, that they are seen from the
back. The disc is at the other side of the picture ("far") or, as a control, beside each figure ("near").
Pictures come in pairs that differ only in the color of the disc, so every crop without the disc occurs with
both labels. A horizontal flip that swaps left and right preserves the rule.

There are two other kinds with the same rule. "own": two figures, one above the other, and each has a disc of
its own, in its half of the picture and of its own color. "ends": long figures, see `ends.py`.

All lengths are fractions of the picture's width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from nl_detectron_shapes import Drawn, figure_at, register_drawn, write_drawings

from nl_detectron.errors import UserError

from .ends import draw_ends
from .labels import CATEGORIES, COLORS, SWAPPED, opposite

KINDS = ("one", "own", "ends")
MODES = ("far", "near")
SIZE = 256  # pixels, as in the configs
MARGIN = 0.5  # the minimum distance from a far disc to every figure
_ORDER = {"front": slice(None), "back": SWAPPED}
_STRIP = 0.3  # the figures are in this part of the picture, from its left or right
_GAP = 0.02  # from the disc to the border, at most, or to the figure it is beside

Picture = tuple[np.ndarray, list[Drawn]]


@dataclass(frozen=True)
class Layout:
    """The proportions of pictures.

    Attributes:
        height: of a picture.
        rows: of figures; of two rows, one or both have a figure.
        figure: the least and the greatest height of a figure.
        top: the least and the greatest distance from a figure's head to the top of its row.
        radius: of the disc.
    """

    height: float = 1.0
    rows: int = 2
    figure: tuple[float, float] = (0.28, 0.38)
    top: tuple[float, float] = (0.02, 0.1)
    radius: float = 0.07


LAYOUTS = {
    "square": Layout(),
    # Small, and its disc covers 10 % of it, not 2 %: a model learns what it means within minutes.
    "strip": Layout(height=0.25, rows=1, figure=(0.16, 0.21), top=(0.01, 0.06), radius=0.09),
}


def dataset_name(mode: str, kind: str = "one") -> str:
    """The name of a data set's folder, and its own without `keypoints_` and the split."""
    return f"shapes_{mode}" if kind == "one" else f"shapes_{kind}_{mode}"


def register_pictures(root: Path) -> None:
    """Register [keypoints_]shapes_[own_,ends_]{far,near}_{train,val} below `root`, or move them there."""
    for name in [dataset_name(mode, kind) for kind in KINDS for mode in MODES]:
        register_drawn(name, root / name, CATEGORIES)


def write_pictures(
    root: Path,
    mode: str,
    *,
    train: int,
    val: int,
    kind: str = "one",
    size: int = SIZE,
    layout: str = "square",
    seed: int = 0,
) -> bool:
    """Draw the data set of a mode and kind below `root`, as `write_drawings` does.

    Args:
        train, val: the number of pictures. A pair depends only on the seed, its split and its index.
        size: their width in pixels.
        layout: a key of LAYOUTS.

    Returns:
        False if the data set is there already.

    Raises:
        UserError: for a number out of range, or if the folder holds another data set.
    """
    if train % 2 or val % 2:
        raise UserError(f"--train and --val must be even, as pictures come in pairs; got {train} and {val}.")

    def draw(split: int, index: int) -> Picture:
        pair, which = divmod(index, 2)
        rng = np.random.default_rng([seed, split, pair])
        return draw_kind(kind, rng, size, near=mode == "near", layout=LAYOUTS[layout])[which]

    parameters = {"train": train, "val": val, "size": size, "seed": seed, "mode": mode}
    parameters |= {"layout": layout} if layout != "square" else {}  # earlier records lack both
    parameters |= {"kind": kind} if kind != "one" else {}
    return write_drawings(root / dataset_name(mode, kind), CATEGORIES, draw, parameters)


def draw_kind(
    kind: str, rng: np.random.Generator, side: int, *, near: bool, layout: Layout = LAYOUTS["square"]
) -> tuple[Picture, Picture]:
    """A pair of one of KINDS, as `draw_pair` and `draw_ends` return it."""
    if kind == "ends":
        return draw_ends(rng, side, near=near)
    return draw_pair(rng, side, near=near, layout=layout, own=kind == "own")


def draw_pair(
    rng: np.random.Generator, side: int, *, near: bool, layout: Layout = LAYOUTS["square"], own: bool = False
) -> tuple[Picture, Picture]:
    """Draw one or two figures twice, with a red and with a blue disc, in random order.

    Args:
        rng: decides everything but the place of the disc.
        side: the width in pixels.
        own: two figures, each with a disc of its own; the colors are independent, and in the second picture
            both are the opposite ones.

    Returns:
        For each picture the image, (H, side, 3) uint8 in BGR order, and its figures.
    """
    image = np.full((side, side, 3), rng.integers(190, 250), np.uint8)
    inwards = rng.choice((1, -1))  # 1: the figures are at the left
    rows = (0, 1) if own else ((0,), (1,), (0, 1))[rng.integers(3)] if layout.rows == 2 else (0,)
    figures = [_figure(rng, side, row, inwards, layout) for row in rows]
    for figure in figures:
        image[figure.mask] = rng.integers(0, 110)
    # Drawn for near pictures too, to keep the generator in step.
    fars = [_far(rng, side, inwards, layout, rows=(row, row + 1)) for row in rows] if own else []
    fars = fars or [_far(rng, side, inwards, layout, rows=(0, layout.rows))]
    discs = [_beside(figure, inwards, layout) for figure in figures] if near else fars
    noise = rng.normal(0, 5, image.shape)
    height = round(layout.height * side)

    def picture(categories: Sequence[str]) -> Picture:
        painted = image.copy()
        for (x, y), category in zip(discs, categories, strict=False):  # a single disc is for all figures
            cv2.circle(painted, (round(x), round(y)), round(layout.radius * side), COLORS[category], -1)
        drawn = [
            Drawn(category, figure.mask[:height], figure.keypoints[_ORDER[category]])
            for figure, category in zip(figures, categories, strict=True)
        ]
        return np.clip(painted + noise, 0, 255).astype(np.uint8)[:height], drawn

    if own:
        one = [CATEGORIES[k] for k in rng.integers(2, size=2)]
    else:
        one = [CATEGORIES[:: rng.choice((1, -1))][0]] * len(figures)
    return picture(one), picture([opposite(category) for category in one])


def _figure(rng: np.random.Generator, side: int, row: int, inwards: int, layout: Layout) -> Drawn:
    """A figure that lies inside a row of the strip."""
    cell, height_of_row = np.zeros((side, side), bool), round(layout.height * side) / layout.rows
    first, end = int(row * height_of_row), int((row + 1) * height_of_row)
    cell[first + 2 : end - 2, 2 : int(_STRIP * side)] = True
    cell = cell[:, ::inwards]
    while True:  # until a pose fits, about the fifth one
        height = rng.uniform(*layout.figure) * side
        x = rng.uniform(0.4, 0.6) * _STRIP * side
        y = (row / 2 + rng.uniform(*layout.top)) * side
        figure = figure_at(rng, side, height, np.array((x if inwards == 1 else side - x, y)))
        if not (figure.mask & ~cell).any():
            return figure


def _far(
    rng: np.random.Generator, side: int, inwards: int, layout: Layout, rows: tuple[int, int]
) -> tuple[float, float]:
    """The center of a disc near the border opposite the figures, in the rows from one to before the other."""
    x = (1 - layout.radius - rng.uniform(0, _GAP)) * side
    top, bottom = (row * layout.height / layout.rows for row in rows)
    y = rng.uniform(top + layout.radius, bottom - layout.radius) * side
    return x if inwards == 1 else side - 1 - x, y


def _beside(figure: Drawn, inwards: int, layout: Layout) -> tuple[float, float]:
    """The center of a disc beside a figure."""
    rows, columns = np.nonzero(figure.mask)
    away = (_GAP + layout.radius) * len(figure.mask)
    edge = columns.max() if inwards == 1 else columns.min()
    return edge + inwards * away, (rows.min() + rows.max()) / 2
