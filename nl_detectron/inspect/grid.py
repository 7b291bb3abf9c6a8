"""Where the positions of a block lie on the image that a person looks at.

Pixel (x, y) covers [x, x + 1) x [y, y + 1). A network resizes the image and pads it on the right and below;
position (row, column) of a map with stride s covers s x s pixels of that, as Detectron2's ROIAlign reads it.
A position j after 2x2 pooling covers 2 x 2 positions i; the last row or column of an odd side is in none.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """The positions i of a map, and j after subsampling, as rectangles of an image in its pixels."""

    left: float  # of position (0, 0)
    top: float
    width: float  # of one position
    height: float
    rows: int
    columns: int
    pooled: tuple[int, int]  # rows and columns of positions i that a position j has been pooled from

    def position_at(self, x: float, y: float) -> int | None:
        """The position i, row by row, at a point of the image; None outside of the map."""
        # Not `//`, which may be less on the border of two positions: 1 // 0.1 is 9.0.
        row, column = math.floor((y - self.top) / self.height), math.floor((x - self.left) / self.width)
        if not (0 <= row < self.rows and 0 <= column < self.columns):
            return None
        return row * self.columns + column

    def pooled_centre(self, position: int) -> tuple[float, float]:
        """The point (x, y) in the middle of a position j."""
        down, across = self.pooled
        row, column = divmod(position, self.columns // across)
        x = self.left + (column + 0.5) * across * self.width
        return x, self.top + (row + 0.5) * down * self.height

    def paint(self, weights: np.ndarray, height: int, width: int) -> np.ndarray:
        """The weight of the position j under the centre of each pixel, NaN where there is none.

        Args:
            weights: of the positions j, (rows', columns').

        Returns:
            (height, width), in float64.
        """
        down, across = self.pooled
        rows = np.floor((np.arange(height) + 0.5 - self.top) / self.height) // down
        columns = np.floor((np.arange(width) + 0.5 - self.left) / self.width) // across
        is_row = (rows >= 0) & (rows < weights.shape[0])
        is_column = (columns >= 0) & (columns < weights.shape[1])
        painted = np.full((height, width), np.nan)
        painted[np.ix_(is_row, is_column)] = weights[
            np.ix_(rows[is_row].astype(int), columns[is_column].astype(int))
        ]
        return painted
