"""Non-local blocks of other implementations: into `NonLocalBlock` and out of it."""

import nl_detectron  # noqa: F401  (before Detectron2: it silences warnings of its code)

from .blocks import block_options, export_block, import_block
from .files import tensors_in, write_checkpoint
from .layouts import LAYOUTS, Layout, find_layout

__all__ = [
    "LAYOUTS",
    "Layout",
    "block_options",
    "export_block",
    "find_layout",
    "import_block",
    "tensors_in",
    "write_checkpoint",
]
