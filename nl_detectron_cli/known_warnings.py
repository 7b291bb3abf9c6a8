"""Warnings of Detectron2's code on PyTorch versions younger than it: a user can do nothing about them."""

import logging
import warnings

_MESSAGES = (
    r"`torch\.jit\.script` is deprecated",  # box transforms and losses, at import
    r"torch\.meshgrid: in an upcoming release",  # the anchor generator names no indexing
    r"Creating a tensor from a list of numpy\.ndarrays",  # 0.5: the boxes of an image's annotations
    r"pkg_resources is deprecated",  # main: the model zoo
)
_LOGGED = {
    "torch.utils.cpp_extension": "No CUDA runtime is found",  # the report on the environment looks for it
    "torch.fx._symbolic_trace": "is_fx_tracing will return true",  # main: its layers ask
}


def ignore_known_warnings() -> None:
    """Add them to the filters of Python's warnings."""
    for message in _MESSAGES:
        warnings.filterwarnings("ignore", message)


def silence_known_warnings() -> None:
    """Silence these, and those that PyTorch logs, in a program of ours."""
    ignore_known_warnings()
    for name, text in _LOGGED.items():
        logging.getLogger(name).addFilter(lambda record, text=text: text not in record.getMessage())
