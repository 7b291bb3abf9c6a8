"""Blocks from and to the checkpoints of other implementations: see docs/variants.md."""

from .convert import block_options, export_block, import_block
from .layouts import LAYOUTS, Layout, find_layout

__all__ = ["LAYOUTS", "Layout", "block_options", "export_block", "find_layout", "import_block"]
