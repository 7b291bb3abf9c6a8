"""Drawn pictures of shapes and stick figures in COCO's format. Importing it registers them."""

import nl_detectron  # noqa: F401  (before Detectron2: it silences warnings of its code)

from .coco import write_drawings, write_shapes
from .drawing import CATEGORIES, Drawn, figure_at
from .registration import add_drawing_flags, datasets_root, register_drawn, register_shapes

__all__ = [
    "CATEGORIES",
    "Drawn",
    "add_drawing_flags",
    "datasets_root",
    "figure_at",
    "register_drawn",
    "register_shapes",
    "write_drawings",
    "write_shapes",
]

register_shapes(datasets_root())
