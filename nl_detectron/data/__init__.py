"""Data sets: one that the project draws itself, and a user's own in COCO's format.

Importing it registers the drawn one with Detectron2.
"""

from .builtin import datasets_root, register_shapes
from .checks import check_records
from .coco_format import MODES, dataset_name, write_shapes
from .register import add_register_coco, register_coco, register_from

__all__ = [
    "MODES",
    "add_register_coco",
    "check_records",
    "dataset_name",
    "datasets_root",
    "register_coco",
    "register_from",
    "register_shapes",
    "write_shapes",
]

register_shapes(datasets_root())
