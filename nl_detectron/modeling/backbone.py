"""Detectron2's ResNet backbones with non-local blocks, as `MODEL.NON_LOCAL` places them.

Each builder calls Detectron2's own and puts the blocks into what it returns. For LazyConfigs, which have
no builders, there are `non_local_fpn` and `non_local_resnet`.
"""

from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone, build_retinanet_resnet_fpn_backbone
from detectron2.modeling.backbone.resnet import ResNet

from nl_detectron.config import STAGES, block_arguments, non_local_node, reported_as_config_keys

from .placement import insert_non_local

Placement = Mapping[str, Sequence[int]]
Arguments = Mapping[str, object]


@BACKBONE_REGISTRY.register()
def build_nl_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """`build_resnet_backbone` with non-local blocks."""
    return _place(cfg, build_resnet_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_nl_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_resnet_fpn_backbone` with non-local blocks in its ResNet."""
    return _place(cfg, build_resnet_fpn_backbone(cfg, input_shape))


@BACKBONE_REGISTRY.register()
def build_nl_retinanet_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
    """`build_retinanet_resnet_fpn_backbone` with non-local blocks in its ResNet."""
    return _place(cfg, build_retinanet_resnet_fpn_backbone(cfg, input_shape))


def non_local_resnet(
    *, placement: Placement, non_local_arguments: Arguments | None = None, **resnet_arguments: object
) -> ResNet:
    """A ResNet with non-local blocks, for a LazyConfig: the `_target_` in the place of `ResNet`.

    Args:
        placement: as in `insert_non_local`, e.g. {"res4": [-1]}.
        non_local_arguments: keyword arguments of `NonLocalBlock`.
        resnet_arguments: those of Detectron2's `ResNet`.

    Raises:
        ArgumentError: (a ValueError) as in `insert_non_local`.
    """
    return _insert(ResNet(**resnet_arguments), placement, non_local_arguments or {})


def non_local_fpn(
    *, placement: Placement, non_local_arguments: Arguments | None = None, **fpn_arguments: object
) -> FPN:
    """`non_local_resnet` with FPN around it: the `_target_` in the place of Detectron2's `FPN`."""
    return _insert(FPN(**fpn_arguments), placement, non_local_arguments or {})


def _place(cfg: CfgNode, backbone: Backbone) -> Backbone:
    placement = {stage: non_local_node(cfg)[stage.upper()] for stage in STAGES}
    with reported_as_config_keys():
        return _insert(backbone, placement, block_arguments(cfg))


def _insert(backbone: Backbone, placement: Placement, arguments: Arguments) -> Backbone:
    # What is built after the backbone is then initialised as in the baseline of the same seed.
    with torch.random.fork_rng(devices=[]):
        return insert_non_local(backbone, placement, **arguments)
