"""`killed_training.py MOMENT ...`: train_net.py that kills itself at a moment of its last step."""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import nl_detectron_shapes  # noqa: F401
import torch

from nl_detectron.engine import main

LAST_STEP = 3  # of runs.STEPS
steps = itertools.count(1)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def calls_first(function: Callable, first: Callable) -> Callable:
    """`function`, which tells `first` its arguments before it does anything."""

    def called(*args: object, **kwargs: object) -> object:
        first(*args)
        return function(*args, **kwargs)

    return called


def die_in_last_backward(*args: object) -> None:
    if next(steps) == LAST_STEP:
        die()


def die_half_written(content: object, file: object) -> None:
    if content["iteration"] == LAST_STEP - 1:
        file.write(os.urandom(1_000_000))
        file.flush()
        die()


def die_before_tag(path: Path, text: str) -> None:
    if text == "model_final.pth":
        die()


if __name__ == "__main__":
    moment, *words = sys.argv[1:]
    if moment == "within a step":  # after the forward pass
        torch.Tensor.backward = calls_first(torch.Tensor.backward, die_in_last_backward)
    elif moment == "within a checkpoint":
        torch.save = calls_first(torch.save, die_half_written)
    elif moment == "between a checkpoint and its tag":
        Path.write_text = calls_first(Path.write_text, die_before_tag)
    main(words)
