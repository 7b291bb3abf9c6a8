"""Checkpoint files: what other people made is read without running any code that may be in it."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from nl_detectron.errors import ArgumentError, UserError, reported_as_user_errors
from nl_detectron.files import written_whole

# Under what key checkpoints have their tensors: Detectron2, mmcv, SlowFast and pycls, Caffe2.
WRAPPERS = ("model", "state_dict", "model_state", "blobs")

# All that a pickle of dicts, numbers and arrays names; numpy 2 has renamed its core.
_ADMITTED = {
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *(
        (f"numpy.{core}.{module}", name)
        for core in ("core", "_core")
        for module, name in (
            ("multiarray", "_reconstruct"),
            ("multiarray", "scalar"),
            ("numeric", "_frombuffer"),
        )
    ),
}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a .pkl, or of anything else as PyTorch's own format.

    Raises:
        UserError: (a ValueError) if it is no such file, or one that holds more than tensors, arrays, numbers,
            text and plain containers of them.
        OSError: if it cannot be read.
    """
    remedy = "if you trust it, save its state dict alone, with torch.save, as a .pth"
    with path.open("rb") as file, reported_as_user_errors(f"{path} cannot be read ({remedy})"):
        if path.suffix == ".pkl":
            # Python 2's strings, as Caffe2's files have them
            content = _ArrayUnpickler(file, encoding="latin1").load()
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ArgumentError(str(path), "a checkpoint, a dict", type(content).__name__, "Check the file.")
    return dict(content)


def tensors_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, wherever it has them; arrays as tensors."""
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    arrays = {name: torch.from_numpy(a) for name, a in named.items() if _is_array_of_numbers(a)}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)} | arrays


def write_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a new file: completely, or not at all. A .pkl has arrays instead of tensors.

    Raises:
        UserError: (a ValueError) if there is a file already.
    """
    check_is_new(path)
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        _dump(path.suffix, content, file)


def check_is_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"the output must be a new file; got {path}, which exists. Choose another name.")


def _dump(suffix: str, content: Mapping[str, Any], file: BinaryIO) -> None:
    if suffix == ".pkl":
        # For the authors' code, of Python 2: its protocol, and what numpy called its module at that time
        pickled = pickle.dumps(_as_arrays(content), protocol=2)
        file.write(pickled.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    else:
        torch.save(dict(content), file)


def _as_arrays(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _as_arrays(item) for name, item in value.items()}
    return value.numpy() if isinstance(value, Tensor) else value


def _is_array_of_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiu"


class _ArrayUnpickler(pickle.Unpickler):
    """It calls nothing but what makes arrays: any other pickle can run code of its author's choice."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which is neither an array nor a container"
            )
        return super().find_class(module, name)
