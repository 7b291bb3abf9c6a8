"""Training and evaluation: Detectron2's own, from the command line."""

from .command_line import find_config, read_config, tool_parser
from .launcher import main
from .trainer import Trainer, evaluation_tasks

__all__ = ["Trainer", "evaluation_tasks", "find_config", "main", "read_config", "tool_parser"]
