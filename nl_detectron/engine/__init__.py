"""Training and evaluation: Detectron2's own, from the command line."""

from .checks import check_dataset_files
from .config_loading import flat_pairs, merge_options
from .flags import (
    add_detection_flags,
    find_config,
    output_path,
    read_config,
    set_confidence_threshold,
    tool_parser,
)
from .launcher import main
from .run_record import Run, read_run
from .trainer import Trainer, evaluation_tasks

__all__ = [
    "Run",
    "Trainer",
    "add_detection_flags",
    "check_dataset_files",
    "evaluation_tasks",
    "find_config",
    "flat_pairs",
    "main",
    "merge_options",
    "output_path",
    "read_config",
    "read_run",
    "set_confidence_threshold",
    "tool_parser",
]
