"""Checkpoint files of any origin, read without running code that may be in them."""

import pickle
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from detectron2.utils.env import TORCH_VERSION

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

_MAKERS = (np.array(1.0).__reduce__()[0], np.float64(1).__reduce__()[0])  # of arrays and of numbers


@contextmanager
def unreadable_as_user_error(path: Path | str) -> Iterator[None]:
    """Report errors of reading a checkpoint, which are of many types, as a UserError that names the file."""
    try:
        yield
    except Exception as error:
        if is_user_error(error):
            raise
        reason = why_refused(error) or str(error).partition("\n")[0] or type(error).__name__
        remedy = "If you trust it, save its state dict alone, with torch.save, as a .pth."
        raise UserError(f"{path} cannot be read as a checkpoint: {reason}. {remedy}") from error


def why_refused(error: BaseException) -> str:
    """What PyTorch refuses to read, "" for other errors. Its own message recommends to run what is there."""
    if not isinstance(error, pickle.UnpicklingError) or "weights_only" not in str(error).lower():
        return ""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return f"it holds more than tensors{f', {found[1]}' if found else ''}"


def numpy_admitted() -> AbstractContextManager:
    """Let PyTorch read numpy's arrays and numbers, which run no code."""
    admitted = [np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bBhHiIlLqQefdSU"}, *_MAKERS]
    if TORCH_VERSION >= (2, 6):  # which takes names as well: numpy 2 has renamed its core
        for core in ("core", "_core"):
            admitted += [(maker, f"numpy.{core}.multiarray.{maker.__name__}") for maker in _MAKERS]
    return torch.serialization.safe_globals(admitted)


def load_safely(file: Path | IO[bytes], mmap: bool = False) -> object:
    """torch.load on the CPU, of tensors, numpy's arrays and numbers, and containers only."""
    with numpy_admitted():
        return torch.load(file, map_location="cpu", mmap=mmap, weights_only=True)


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
            content = load_safely(file)
    if not isinstance(content, Mapping):
        raise UserError(f"{path} is no checkpoint: it holds a {type(content).__name__}, not a dict.")
    return dict(content)


class _ArrayUnpickler(pickle.Unpickler):
    """It calls nothing but what makes arrays: any other pickle can run code of its author's choice."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, neither an array nor a container")
        return super().find_class(module, name)
