"""Training and evaluation: Detectron2's own, from the command line."""

from .command_line import (
    add_detection_flags,
    find_config,
    read_config,
    set_confidence_threshold,
    tool_parser,
)
from .launcher import main
from .trainer import Trainer, evaluation_tasks

__all__ = [
    "Trainer",
    "add_detection_flags",
    "evaluation_tasks",
    "find_config",
    "main",
    "read_config",
    "set_confidence_threshold",
    "tool_parser",
]
