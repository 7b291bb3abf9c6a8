"""Drawn pictures of shapes and stick figures, in COCO's format."""

from .coco import write_drawings, write_shapes
from .drawing import Drawn, figure_at

__all__ = ["Drawn", "figure_at", "write_drawings", "write_shapes"]
