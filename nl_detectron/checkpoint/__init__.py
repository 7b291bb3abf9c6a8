"""Checkpoints and their load report."""

from .checkpointer import (
    METADATA,
    VARIANTS,
    Checkpointer,
    check_weights_file,
    last_intact_checkpoint,
    load_weights,
    saved_metadata,
)
from .foreign import convert_resnet, find_state_dict
from .load_report import LoadReport
from .reading import load_safely, read_checkpoint
