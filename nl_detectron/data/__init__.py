"""Data sets in COCO's format: a user's own, and drawn ones."""

from .drawn import SHAPES, datasets_root, register_drawn
from .register import add_register_coco, register_coco, register_datasets

__all__ = [
    "SHAPES",
    "add_register_coco",
    "datasets_root",
    "register_coco",
    "register_datasets",
    "register_drawn",
]
