"""Checkpoint files of other implementations."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

# The key under which a checkpoint has its tensors: of Detectron2, mmcv, SlowFast and pycls, Caffe2.
WRAPPERS = ("model", "state_dict", "model_state", "blobs")


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, under whichever key it has them; arrays as tensors."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.from_numpy(value)
        if isinstance(name, str) and isinstance(value, Tensor):
            tensors[name] = value
    return tensors


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a new file, atomically. A .pkl has arrays instead of tensors.

    Raises:
        UserError: (a ValueError) if there is a file already.
    """
    check_is_new(path)
    with atomic_write(path) as unfinished:
        if path.suffix == ".pkl":
            # For the authors' code, of Python 2: its protocol, and what numpy called its module at that time
            pickled = pickle.dumps(_as_arrays(content), protocol=2)
            pickled = pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
            unfinished.write_bytes(pickled)
        else:
            torch.save(dict(content), unfinished)


def check_is_new(path: Path) -> None:
    """Raise a UserError (a ValueError) if there is such a file already."""
    if path.exists():
        raise UserError(f"{path} exists already. Choose another name.")


def _as_arrays(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _as_arrays(item) for name, item in value.items()}
    return value.cpu().numpy() if isinstance(value, Tensor) else value
