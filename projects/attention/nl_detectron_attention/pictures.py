"""Heat maps, and the paper's Figure 3: arrows from a position to those that it attends to most."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.inspect import Field, Grid

from .queries import Query
from .words import in_words

ARROWS = 20  # at most, as in Figure 3
STANDS_OUT = 2  # times the share of a uniform map, 1/M: below that, an arrow would point at noise
LETTERS = 12  # of a title in an inch, at the least
PANEL, NARROWEST, WIDTH = 3.2, 2.6, 16.0  # inches: of a panel's longer side, of a panel, of the whole picture
MARGIN = 0.1  # of a detection's box, around it
PIXELS = 1000  # along the longer side of what is drawn; a panel has fewer


def draw_queries(image: np.ndarray, queries: Sequence[Query]) -> Figure:
    """For each query of one field its arrows, and beside them its heat map.

    Args:
        image: (H, W, 3) of uint8, BGR.
        queries: at least one.
    """
    left, top, right, bottom = _view(image, queries[0].field)
    shown = _Shown.of(image, (left, top, right, bottom))
    size = PANEL * (1.5 if len(queries) == 1 else 1)  # inches along the longer side
    scale = size / max(right - left, bottom - top)
    width = max((right - left) * scale + 0.5, NARROWEST)  # with a colour bar
    height = (bottom - top) * scale + 0.7  # with titles
    across = min(len(queries), max(1, int(WIDTH / (2 * width))))
    down = math.ceil(len(queries) / across)
    figure = Figure(figsize=(max(2 * width * across, 7), height * down + 0.7), dpi=100)
    figure.set_layout_engine("constrained", h_pad=0.1)
    field = queries[0].field
    title = f"{field.name} ({field.block.extra_repr()})\n{in_words(field.query_dependence, field.change)}"
    letters = int(figure.get_figwidth() * LETTERS)
    figure.suptitle(_wrapped(title, letters), fontsize=9)
    panels = figure.subplots(down, 2 * across, squeeze=False).flatten()
    for query, arrows, heat in zip(queries, panels[::2], panels[1::2], strict=False):
        weights = query.weights()
        _draw_arrows(arrows, shown, query, weights)
        _draw_heat(heat, shown, query, weights)
    for panel in panels[2 * len(queries) :]:
        panel.set_visible(False)
    for panel in panels:
        panel.set_title(_wrapped(panel.get_title(), letters // (2 * across + 1)), fontsize=9)
        panel.set(xlim=(left, right), ylim=(bottom, top), xticks=[], yticks=[])
    return figure


@dataclass(frozen=True)
class _Shown:
    """A part of an image, with no more pixels than a panel can show."""

    pixels: np.ndarray  # BGR
    left: int
    top: int
    scale: float  # of the pixels here, to those of the image
    extent: tuple[float, float, float, float]  # as matplotlib takes it, in pixels of the image

    @classmethod
    def of(cls, image: np.ndarray, view: Sequence[float]) -> "_Shown":
        """The part in which left, top, right and bottom lie."""
        left, top, right, bottom = (int(side) for side in (*np.floor(view[:2]), *np.ceil(view[2:])))
        pixels = image[top:bottom, left:right]
        if (scale := PIXELS / max(pixels.shape[:2])) < 1:
            size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        scale = min(scale, 1)
        return cls(pixels, left, top, scale, (left, right, bottom, top))

    def paint(self, grid: Grid, weights: np.ndarray) -> np.ndarray:
        """The weight under each of the pixels."""
        place = {"left": (grid.left - self.left) * self.scale, "top": (grid.top - self.top) * self.scale}
        size = {"width": grid.width * self.scale, "height": grid.height * self.scale}
        return replace(grid, **place, **size).paint(weights, *self.pixels.shape[:2])


def _wrapped(text: str, letters: int) -> str:
    return "\n".join(textwrap.fill(line, letters) for line in text.splitlines())


def strongest(weights: np.ndarray, count: int = ARROWS) -> np.ndarray:
    """The positions j of the largest weights (H', W'), signed ones by their size, largest first."""
    return np.argsort(-np.abs(weights).flatten(), kind="stable")[:count]


def count_outstanding(weights: np.ndarray) -> int:
    """How many of the strongest positions have a |weight| / sum |weights| above STANDS_OUT / M."""
    sizes = np.abs(weights)
    return min(ARROWS, int((sizes > STANDS_OUT * sizes.mean()).sum()))


def _draw_arrows(panel: Axes, shown: _Shown, query: Query, weights: np.ndarray) -> None:
    weights, grid = weights.flatten(), query.field.grid
    panel.imshow(shown.pixels[:, :, ::-1], extent=shown.extent)
    highest = np.abs(weights).max() or 1.0
    outstanding = strongest(weights, count_outstanding(weights))
    for j in outstanding[::-1]:
        share = abs(weights[j]) / highest
        style = {"arrowstyle": "-|>", "color": "deepskyblue" if weights[j] < 0 else "darkorange"}
        style |= {"lw": 0.6 + 1.6 * share, "alpha": 0.35 + 0.65 * share, "shrinkA": 0, "shrinkB": 0}
        ends = {"xy": grid.pooled_centre(int(j)), "xytext": (query.x, query.y)}
        panel.annotate("", **ends, arrowprops=style, annotation_clip=True)
    panel.plot(query.x, query.y, "o", color="red", markersize=5, markeredgecolor="white")
    panel.set_title(query.label if len(outstanding) else f"{query.label}\nno position stands out")


def _draw_heat(panel: Axes, shown: _Shown, query: Query, weights: np.ndarray) -> None:
    panel.imshow(shown.pixels.mean(2), extent=shown.extent, cmap="gray", vmin=-255, vmax=255)  # pale
    limit, is_signed = float(np.abs(weights).max()) or 1.0, query.field.is_signed
    painted = shown.paint(query.field.grid, weights)
    colours = {"cmap": "RdBu_r", "vmin": -limit} if is_signed else {"cmap": "YlOrRd", "vmin": 0}
    alpha = np.nan_to_num(0.1 + 0.7 * np.abs(painted) / limit)
    heat = panel.imshow(
        painted, extent=shown.extent, **colours, vmax=limit, alpha=alpha, interpolation="nearest"
    )
    panel.plot(query.x, query.y, "o", color="red", markersize=5, markeredgecolor="white")
    largest = f"largest {weights.flat[np.abs(weights).argmax()]:.2g}"
    panel.set_title(largest if is_signed else f"{largest}; alike for all: {1 / weights.size:.2g}")
    panel.figure.colorbar(heat, ax=panel, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)


def _view(image: np.ndarray, field: Field) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is shown: the image, or a detection's box and some margin."""
    height, width = image.shape[:2]
    if field.detection is None:
        return 0, 0, width, height
    grid = field.grid
    dx, dy = MARGIN * grid.columns * grid.width, MARGIN * grid.rows * grid.height
    right, bottom = grid.left + grid.columns * grid.width + dx, grid.top + grid.rows * grid.height + dy
    return max(0, grid.left - dx), max(0, grid.top - dy), min(width, right), min(height, bottom)
