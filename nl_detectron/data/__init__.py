"""Data sets in COCO's format: a user's own, and drawn ones."""

from .drawn import SHAPES, datasets_root, register_drawn
from .loaders import why_unreadable
from .records import Record, check_records
from .register import add_register_coco, register_coco, register_datasets
