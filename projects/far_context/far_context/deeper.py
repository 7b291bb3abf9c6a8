"""The control of Section 5.1, "going deeper": a residual block in place of a non-local block.

Importing this module registers the backbone with Detectron2.
"""

from copy import deepcopy

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from fvcore.nn.weight_init import c2_msra_fill
from torch import nn

from nl_detectron.modeling import insert_child


@BACKBONE_REGISTRY.register()
def build_deeper_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_resnet_fpn_backbone` with one more residual block, right before the last one of res4.

    The child is called `more`, so pretrained keys stay the same. Its weights are new. Like a non-local block
    it starts as the identity: the scale of its last norm is zero or, if that is frozen, its last convolution.
    """
    fpn = build_resnet_fpn_backbone(cfg, input_shape)
    stage = fpn.bottom_up.res4
    last = stage[-1]
    block = deepcopy(last)
    convolutions = [getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    # Without consuming random numbers: later modules start as in the baseline of the same seed.
    with torch.random.fork_rng(devices=[]):
        for convolution in convolutions:
            c2_msra_fill(convolution)
    scale = convolutions[-1].norm.weight
    nn.init.zeros_(scale if scale.requires_grad else convolutions[-1].weight)
    insert_child(stage, "more", block, last)
    return fpn
