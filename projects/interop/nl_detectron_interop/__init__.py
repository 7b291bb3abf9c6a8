"""Non-local blocks of other implementations: into `NonLocalBlock` and out of it."""

from .blocks import block_options, export_block, import_block
from .files import check_is_new, tensors_in, write_checkpoint
from .layouts import LAYOUTS, Layout, find_layout

__all__ = [
    "LAYOUTS",
    "Layout",
    "block_options",
    "check_is_new",
    "export_block",
    "find_layout",
    "import_block",
    "tensors_in",
    "write_checkpoint",
]
