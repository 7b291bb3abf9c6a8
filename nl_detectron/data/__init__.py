"""A data set that the project draws itself. Importing it registers it with Detectron2."""

from .builtin import datasets_root, register_shapes
from .coco_format import write_shapes

__all__ = ["datasets_root", "register_shapes", "write_shapes"]

register_shapes(datasets_root())
