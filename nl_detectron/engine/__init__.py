"""Training and evaluation: Detectron2's own, from the command line."""

from .command_line import read_config, tool_parser
from .launcher import main
from .trainer import Trainer, evaluation_tasks

__all__ = ["Trainer", "evaluation_tasks", "main", "read_config", "tool_parser"]
