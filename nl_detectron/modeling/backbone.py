"""Detectron2's ResNet backbones with non-local blocks, as `MODEL.NON_LOCAL` places them.

Each builder calls Detectron2's own and puts the blocks into what it returns.
"""

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import (
    build_resnet_fpn_backbone,
    build_retinanet_resnet_fpn_backbone,
)
from detectron2.modeling.backbone.resnet import ResNet

from nl_detectron.config import STAGES, block_arguments, non_local_node, reported_as_config_keys

from .placement import insert_non_local


@BACKBONE_REGISTRY.register()
def build_nl_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """`build_resnet_backbone` with non-local blocks."""
    return _place(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_nl_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_resnet_fpn_backbone` with non-local blocks in its ResNet."""
    fpn = build_resnet_fpn_backbone(cfg, input_shape)
    _place(cfg, fpn.bottom_up)
    return fpn


@BACKBONE_REGISTRY.register()
def build_nl_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_retinanet_resnet_fpn_backbone` with non-local blocks in its ResNet."""
    fpn = build_retinanet_resnet_fpn_backbone(cfg, input_shape)
    _place(cfg, fpn.bottom_up)
    return fpn


def _place(cfg: CfgNode, resnet: ResNet) -> ResNet:
    placement = {stage: non_local_node(cfg)[stage.upper()] for stage in STAGES}
    # What is built after the backbone is then initialised as in the baseline of the same seed.
    with torch.random.fork_rng(devices=[]), reported_as_config_keys():
        return insert_non_local(resnet, placement, **block_arguments(cfg))
