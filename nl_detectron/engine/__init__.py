"""Training and evaluation: Detectron2's own, from the command line."""

from .launcher import main
from .trainer import Trainer, evaluation_tasks

__all__ = ["Trainer", "evaluation_tasks", "main"]
