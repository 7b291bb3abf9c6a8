"""Weights in and out: checkpoints and their load report, and blocks of other implementations."""

from .blocks import block_options, export_block, import_block
from .checkpointer import VARIANTS, Checkpointer, check_weights_file, last_intact_checkpoint, load_weights
from .layouts import LAYOUTS, Layout, find_layout
from .load_report import LoadReport
from .reading import check_is_new, read_checkpoint, tensors_in, write_checkpoint
