"""The registered builders: what MODEL.NON_LOCAL places, and that nothing else of the backbone changes."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone

from nl_detectron import get_cfg
from nl_detectron.modeling import non_local_blocks


def backbone_cfg(name: str, **node: object) -> CfgNode:
    """A small R18 config with the builder `name` and MODEL.NON_LOCAL as given."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    cfg.MODEL.NON_LOCAL.merge_from_list([item for pair in node.items() for item in pair])
    return cfg


def places(module: torch.nn.Module) -> list[str]:
    return [name for name, _ in non_local_blocks(module)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("build_nl_resnet_backbone", "res4.non_local_1"),
        ("build_nl_resnet_fpn_backbone", "bottom_up.res4.non_local_1"),
        ("build_nl_retinanet_resnet_fpn_backbone", "bottom_up.res4.non_local_1"),
    ],
)
def test_builders_add_the_block_and_nothing_else(name: str, expected: str) -> None:
    """From the same seed, all that the baseline has is the same, to the bit."""
    torch.manual_seed(3)
    baseline = build_backbone(backbone_cfg(name.replace("_nl", ""))).eval()
    next_draw = torch.rand(1)
    torch.manual_seed(3)
    model = build_backbone(backbone_cfg(name)).eval()
    assert torch.rand(1) == next_draw
    assert places(model) == [expected]
    state = model.state_dict()
    assert all(state[key].equal(value) for key, value in baseline.state_dict().items())
    image = torch.randn(1, 3, 64, 64)
    features = model(image)
    assert all(features[key].equal(value) for key, value in baseline(image).items())


def test_node_reaches_the_blocks() -> None:
    stages = {"RES2": [1], "RES3": [0, -1], "RES4": [], "RES5": [2]}
    options = {"PAIRWISE": "dot_product", "REDUCTION": 4, "SUBSAMPLE": "none", "SCALE": False, "NORM": "GN"}
    model = build_backbone(backbone_cfg("build_nl_resnet_backbone", **stages, **options))
    blocks = [(2, 1), (3, 0), (3, 1), (5, 2)]
    assert places(model) == [f"res{stage}.non_local_{k}" for stage, k in blocks]
    block = model.res5.non_local_2
    assert (block.pairwise, block.subsample, block.scale) == ("dot_product", "none", False)
    assert block.inner_channels == 128
    assert isinstance(block.out.norm, torch.nn.GroupNorm)


def test_freeze_at_freezes_the_blocks_of_frozen_stages() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone", RES2=[1], RES3=[1], RES4=[1])
    cfg.MODEL.BACKBONE.FREEZE_AT = 3
    model = build_backbone(cfg)
    trainable = [any(p.requires_grad for p in block.parameters()) for _, block in non_local_blocks(model)]
    assert trainable == [False, False, True]


def test_trimmed_stages() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone")
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    assert places(build_backbone(cfg)) == ["res4.non_local_1"]
    cfg.MODEL.NON_LOCAL.RES5 = [0]
    with pytest.raises(ValueError, match=r"MODEL.NON_LOCAL.RES5 must be empty, as ResNet has .*got \[0\]"):
        build_backbone(cfg)


def test_config_without_the_node() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone")
    del cfg.MODEL["NON_LOCAL"]
    with pytest.raises(ValueError, match=r"no MODEL.NON_LOCAL\. .*add_non_local"):
        build_backbone(cfg, ShapeSpec(channels=3))
