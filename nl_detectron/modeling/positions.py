"""Positions in float32, whatever the precision of the features."""

from functools import partial

from detectron2.layers import ROIAlign
from detectron2.modeling.roi_heads import BaseKeypointRCNNHead, BaseMaskRCNNHead
from torch import Tensor, nn

from nl_detectron.layers import at_least_float32


def locate_in_float32(model: nn.Module) -> nn.Module:
    """Let a detector pool regions, and decode masks and keypoints, at float32 coordinates. In place.

    Detectron2 rounds coordinates to the precision of the features, and bfloat16 has only multiples of 4 from
    512 on, and of 8 from 1024 on. The state dict stays as it is.

    Returns:
        The model.
    """
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, ROIAlign) and not isinstance(module, _Float32ROIAlign):
                setattr(module, name, _Float32ROIAlign(child))
        if isinstance(module, (BaseMaskRCNNHead, BaseKeypointRCNNHead)) and "layers" not in vars(module):
            module.layers = partial(_logits, module)  # a copy of it is bound to the copied module
    return model


class _Float32ROIAlign(nn.Module):
    def __init__(self, roi_align: ROIAlign) -> None:
        super().__init__()
        self.roi_align = roi_align

    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        return self.roi_align(at_least_float32(features), boxes).to(features.dtype)


def _logits(head: nn.Module, x: Tensor) -> Tensor:
    """What the head decodes, or compares with the truth."""
    return at_least_float32(type(head).layers(head, x))
