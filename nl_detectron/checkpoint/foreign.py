"""Weights of other trainers, and ResNets of torchvision and timm, under Detectron2's names."""

from collections.abc import Collection, Mapping

import numpy as np
import torch

StateDict = Mapping[str, object]

# Under which trainers keep the state dict, the first that is there; then whatever has "ema" in its name.
_WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict", "module")
_FIRST = "layer1.0.conv1.weight"
_PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile and Lightning

# What torchvision's and timm's ImageNet models were trained with.
_IMAGENET = (
    "It is a ResNet of torchvision or timm, which needs INPUT.FORMAT RGB, MODEL.PIXEL_MEAN "
    "[123.675, 116.28, 103.53], MODEL.PIXEL_STD [58.395, 57.12, 57.375] and MODEL.RESNETS.STRIDE_IN_1X1 False"
)


def find_state_dict(content: Mapping[str, object], own: Collection[str] = ()) -> StateDict:
    """The tensors in a checkpoint of any trainer by name, without a shared prefix that is not `own`."""
    while wrapper := next((key for key in _keys(content) if isinstance(content[key], Mapping)), None):
        content = content[wrapper]
    names = [name for name in content if isinstance(name, str)]
    for prefix in _PREFIXES:
        is_shared = 0 < len(names) == len(content) and all(name.startswith(prefix) for name in names)
        if is_shared and not any(name.startswith(prefix) for name in own):
            return find_state_dict({name.removeprefix(prefix): content[name] for name in names}, own)
    return content


def _keys(content: Mapping[str, object]) -> list[str]:
    named = [key for key in _WRAPPERS if key in content]
    return named + [key for key in content if isinstance(key, str) and "ema" in key.lower().split("_")]


def is_tensor(value: object) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def convert_resnet(tensors: StateDict, own: Collection[str] = ()) -> tuple[StateDict, str]:
    """Tensors of a ResNet of torchvision or timm under Detectron2's names, and what such a model needs.

    Others stay as they are, with "", and so do all if the model has such a ResNet by its `own` names.
    """
    if _FIRST not in tensors or any(name.endswith(_FIRST) for name in own):
        return tensors, ""
    return {_name_in_detectron2(name): value for name, value in tensors.items()}, _IMAGENET


def _name_in_detectron2(name: str) -> str:
    if not name.startswith(("layer", "fc.")):
        name = f"stem.{name}"
    for number in (1, 2, 3, 4):
        name = name.replace(f"layer{number}.", f"res{number + 1}.")
        name = name.replace(f"bn{number}.", f"conv{number}.norm.")
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
