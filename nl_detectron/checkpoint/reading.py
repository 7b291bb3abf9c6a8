"""Checkpoint files of any origin, read without running code that may be in them."""

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nl_detectron.errors import UserError, is_user_error

_ADMITTED = {  # what pickles of dicts, numbers and arrays refer to; numpy 2 has renamed its core
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.multiarray", "scalar") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


@contextmanager
def unreadable_as_user_error(path: Path | str) -> Iterator[None]:
    """Report errors of reading a checkpoint, which are of many types, as a UserError that names the file."""
    try:
        yield
    except Exception as error:
        if is_user_error(error):
            raise
        # PyTorch's message would recommend to run whatever is in the file.
        is_unsafe = isinstance(error, pickle.UnpicklingError) and "weights_only" in str(error).lower()
        reason = "it holds more than tensors" if is_unsafe else str(error).partition("\n")[0]
        remedy = "If you trust it, save its state dict alone, with torch.save, as a .pth."
        reason = reason or type(error).__name__
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}. {remedy}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a .pkl, or of anything else as PyTorch's own format.

    Raises:
        UserError: if it is no such file, or holds more than tensors, arrays, numbers, text and containers.
    """
    with path.open("rb") as file, unreadable_as_user_error(path):
        if path.suffix == ".pkl":
            # Python 2's strings, as Caffe2's files have them
            content = _ArrayUnpickler(file, encoding="latin1").load()
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}, not a dict.")
    return dict(content)


class _ArrayUnpickler(pickle.Unpickler):
    """It calls nothing but what makes arrays: any other pickle can run code of its author's choice."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, neither an array nor a container")
        return super().find_class(module, name)
