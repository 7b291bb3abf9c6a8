"""Blocks from and to the checkpoints of other implementations: see docs/variants.md."""

from .convert import block_options, export_block, import_block
from .files import check_is_new, read_checkpoint, tensors_in, write_checkpoint
from .layouts import LAYOUTS, Layout, find_layout

__all__ = [
    "LAYOUTS",
    "Layout",
    "block_options",
    "check_is_new",
    "export_block",
    "find_layout",
    "import_block",
    "read_checkpoint",
    "tensors_in",
    "write_checkpoint",
]
