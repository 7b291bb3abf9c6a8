"""Data sets in COCO's format."""

from nl_detectron_cli.arguments import add_register_coco

from .coco_file import clean_coco_file
from .loaders import Record, check_broken, why_unreadable
from .register import clean_registered, register_coco, register_from, tell_mended
