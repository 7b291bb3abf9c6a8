"""Weights for networks of clips: ImageNet's of a ResNet of images, and the authors' Caffe2 models of videos.

Names are torchvision's, Detectron2's (`res4.0.conv1.norm.weight`) or Caffe2's (`res4_0_branch2a_bn_s`).
Weights of two dimensions are inflated (Section 4). Norms of which only a scale and a shift are stored have
mean 0 and variance 1.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names
from detectron2.utils.file_io import PathManager
from nl_detectron_interop import import_block, tensors_in
from torch import Tensor, nn

from nl_detectron.checkpoint import find_state_dict, read_checkpoint
from nl_detectron.errors import UserError

from .nets import inflated

# The authors' block after residual block 5 of res4 is before block 6, or the last of its stage.
_BLOCK = re.compile(r"nonlocal_conv(\d)_(\d+)_(.+)")
_NOT_WEIGHTS = ("_momentum", "lr", "model_iter", "weight_order")
_NAMES = (  # Detectron2's, and torchvision's
    (r"^stem\.", ""),
    (r"^res(\d)\.", lambda match: f"layer{int(match[1]) - 1}."),
    (r"conv(\d)\.norm\.", r"bn\1."),
    (r"shortcut\.norm\.", "downsample.1."),
    (r"shortcut\.", "downsample.0."),
    (r"^linear\.", "fc."),
)


def load_weights(net: nn.Module, path: str) -> str:
    """Load a checkpoint, ours too, into a network of `nets.c2d` or `nets.i3d`, in place.

    Args:
        path: a file, or a URL that Detectron2 knows.

    Returns:
        Which parts are new: the classifier, if the file's has other classes, and blocks that the file lacks.

    Raises:
        UserError: for no file, one that cannot be read, or one that lacks other parts of the network.
    """
    if not path:
        raise UserError("train.init_checkpoint is empty. Set it to a checkpoint of this network.")
    content = read_checkpoint(Path(PathManager.get_local_path(path)))
    theirs = named_as_torchvision(tensors_in(find_state_dict(content)))
    own = net.state_dict()
    fitting = {name: _fit(theirs[name], own[name]) for name in own if name in theirs}
    fitting = {name: tensor for name, tensor in fitting.items() if tensor.shape == own[name].shape}
    for name in own:  # of norms that are merged into a scale and a shift
        norm, _, statistic = name.rpartition(".")
        is_statistic = statistic in ("running_mean", "running_var", "num_batches_tracked")
        if is_statistic and name not in fitting and f"{norm}.weight" in fitting:
            fitting[name] = torch.full_like(own[name], statistic == "running_var")
    new = {re.match(r"fc|.*non_local_\d+|.*", name)[0] for name in own if name not in fitting}
    if wrong := sorted(name for name in new if name != "fc" and "non_local" not in name):
        names, count = ", ".join(wrong[:5]), f"{len(wrong)} of {len(own)} tensors"
        raise UserError(f"{path} does not fit: it lacks {count}, or has other shapes ({names}, ...).")
    net.load_state_dict(fitting, strict=False)
    return ", ".join(sorted(new))


def _fit(theirs: Tensor, own: Tensor) -> Tensor:
    """Inflate the weights of a convolution over images, and reshape those of a classifier by convolution."""
    if theirs.dim() == 4 and own.dim() == 5:
        return inflated(theirs.unsqueeze(2), own.shape[2])
    return theirs.flatten(1) if own.dim() == 2 else theirs


def named_as_torchvision(tensors: Mapping[str, object]) -> dict[str, Tensor]:
    """Tensors of a ResNet under torchvision's names; their blocks under those of `nets.PLACES`."""
    tensors = {
        name.removeprefix("net."): torch.as_tensor(value)
        for name, value in tensors.items()
        if not name.endswith(_NOT_WEIGHTS)
    }
    blocks: dict[str, dict[str, Tensor]] = {}
    for name in [name for name in tensors if _BLOCK.fullmatch(name)]:
        stage, place, rest = _BLOCK.fullmatch(name).groups()
        blocks.setdefault(f"layer{int(stage) - 1}.non_local_{int(place) + 1}", {})[rest] = tensors.pop(name)
    if any("_branch2a" in name for name in tensors):
        tensors = dict(zip(convert_basic_c2_names([*tensors]), tensors.values(), strict=True))
    named = {_as_torchvision(name): tensor for name, tensor in tensors.items()}
    for path, block in blocks.items():
        named |= {f"{path}.{name}": each for name, each in import_block(block, "caffe2").state_dict().items()}
    return named


def _as_torchvision(name: str) -> str:
    for pattern, replacement in _NAMES:
        name = re.sub(pattern, replacement, name)
    return name
