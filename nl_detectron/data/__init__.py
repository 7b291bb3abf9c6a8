"""Data sets in COCO's format."""

from .loaders import why_unreadable
from .records import Record, check_records
from .register import add_register_coco, register_coco, register_from
