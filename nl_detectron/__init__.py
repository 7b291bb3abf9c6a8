"""Non-local blocks (Wang, Girshick, Gupta, He: "Non-local Neural Networks", CVPR 2018) for Detectron2.

Importing it registers the backbones and the keypoint head with Detectron2, and adds `MODEL.NON_LOCAL` to its
default config, and seven keys of nl_detectron's trainer: a script of Detectron2's own needs this one line.
"""

from importlib import import_module
from importlib.util import find_spec
from warnings import catch_warnings

from nl_detectron_cli.known_warnings import ignore_known_warnings

if find_spec("detectron2") is None:
    raise ModuleNotFoundError(
        "nl_detectron needs Detectron2, which this Python does not have: activate the environment "
        "that `make setup` makes, or see Install in the README",
        name="detectron2",
    )

with catch_warnings():
    ignore_known_warnings()
    import_module("detectron2.model_zoo")  # and Detectron2's models with it

from detectron2.config import defaults

from . import model_zoo
from .config import add_non_local_config, get_cfg
from .errors import ArgumentError
from .layers import NonLocalBlock
from .modeling import (
    NonLocalKRCNNConvDeconvUpsampleHead,
    build_nl_resnet_backbone,
    build_nl_resnet_fpn_backbone,
    build_nl_retinanet_resnet_fpn_backbone,
    insert_non_local,
    insert_non_local_keypoint,
    locate_in_float32,
    non_local_fpn,
    non_local_resnet,
    summarize_non_local,
)

add_non_local_config(defaults._C)  # Detectron2's get_cfg() returns a copy of it

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "NonLocalBlock",
    "NonLocalKRCNNConvDeconvUpsampleHead",
    "add_non_local_config",
    "build_nl_resnet_backbone",
    "build_nl_resnet_fpn_backbone",
    "build_nl_retinanet_resnet_fpn_backbone",
    "export_block",
    "get_cfg",
    "import_block",
    "insert_non_local",
    "insert_non_local_keypoint",
    "locate_in_float32",
    "model_zoo",
    "non_local_fpn",
    "non_local_resnet",
    "summarize_non_local",
]


def __getattr__(name: str) -> object:
    """`import_block` and `export_block` are those of projects/interop, which needs this package."""
    if name in ("import_block", "export_block"):
        return getattr(import_module("nl_detectron_interop"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
