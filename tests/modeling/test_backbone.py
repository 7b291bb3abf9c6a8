"""The registered builders: what MODEL.NON_LOCAL places, and that they refuse what they cannot place."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone, build_model
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from nl_detectron import NonLocalBlock, get_cfg


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
    return [name for name, child in module.named_modules() if isinstance(child, NonLocalBlock)]


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
    cfg = backbone_cfg(
        "build_nl_resnet_backbone",
        RES2=[1],
        RES3=[0, -1],
        RES4=[],
        RES5=[2],
        PAIRWISE="dot_product",
        REDUCTION=4,
        SUBSAMPLE="none",
        SCALE=False,
        NORM="GN",
    )
    model = build_backbone(cfg)
    assert places(model) == [
        "res2.non_local_1",
        "res3.non_local_0",
        "res3.non_local_1",
        "res5.non_local_2",
    ]
    block = model.res5.non_local_2
    assert (block.pairwise, block.subsample, block.scale) == ("dot_product", "none", False)
    assert block.inner_channels == 128
    assert isinstance(block.out.norm, torch.nn.GroupNorm)


@pytest.mark.parametrize("depth", [34, 50, 101, 152])
def test_every_depth_on_the_meta_device(depth: int) -> None:
    cfg = backbone_cfg("build_nl_resnet_fpn_backbone")
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth == 34 else 256
    with torch.device("meta"):
        model = build_backbone(cfg)
    blocks = {34: 6, 50: 6, 101: 23, 152: 36}[depth]
    assert places(model) == [f"bottom_up.res4.non_local_{blocks - 1}"]


def test_freeze_at_freezes_the_blocks_of_frozen_stages() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone", RES2=[1], RES3=[1], RES4=[1])
    cfg.MODEL.BACKBONE.FREEZE_AT = 3
    model = build_backbone(cfg)
    trainable = {
        name: any(p.requires_grad for p in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, NonLocalBlock)
    }
    assert trainable == {
        "res2.non_local_1": False,
        "res3.non_local_1": False,
        "res4.non_local_1": True,
    }


def test_trimmed_stages() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone")
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    assert places(build_backbone(cfg)) == ["res4.non_local_1"]
    cfg.MODEL.NON_LOCAL.RES5 = [0]
    with pytest.raises(ValueError, match=r"MODEL.NON_LOCAL.RES5 must be empty, as only .*got \[0\]"):
        build_backbone(cfg)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"RES4": []}, "NON_LOCAL.RES4 must be a list with a block.*got \\[\\].*Set it to"),
        ({"RES4": [5]}, "NON_LOCAL.RES4 must be a list of integers from -2 to 2.*got \\[5\\]"),
        ({"RES3": [1, 1]}, "NON_LOCAL.RES3 must be a list of places without"),
        ({"RES3": [1.5]}, "NON_LOCAL.RES3 must be a list of integers"),
        ({"PAIRWISE": "softmax"}, "NON_LOCAL.PAIRWISE must be one of .*got 'softmax'"),
        ({"SUBSAMPLE": "both"}, "NON_LOCAL.SUBSAMPLE must be one of .*got 'both'"),
        ({"NORM": "XN"}, "NON_LOCAL.NORM must be a norm .*got 'XN'"),
        ({"REDUCTION": 3}, "NON_LOCAL.REDUCTION must be a positive integer.*got 3"),
        ({"REDUCTION": -2}, "NON_LOCAL.REDUCTION must be a positive integer.*got -2"),
    ],
)
def test_bad_values_name_key_rule_value_and_remedy(node: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match="MODEL." + message):
        build_backbone(backbone_cfg("build_nl_resnet_backbone", **node))


def test_config_without_the_node() -> None:
    cfg = backbone_cfg("build_nl_resnet_backbone")
    del cfg.MODEL["NON_LOCAL"]
    with pytest.raises(ValueError, match=r"no MODEL.NON_LOCAL\. .*add_non_local"):
        build_backbone(cfg, ShapeSpec(channels=3))


def test_retinanet_trains_and_detects() -> None:
    cfg = backbone_cfg("build_nl_retinanet_resnet_fpn_backbone")
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    model = build_model(cfg)
    instances = Instances((64, 64))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 56.0, 56.0]]))
    instances.gt_classes = torch.zeros(1, dtype=torch.int64)
    image = {"image": torch.zeros(3, 64, 64, dtype=torch.uint8), "instances": instances}
    with EventStorage():
        sum(model([image]).values()).backward()
    block = model.backbone.bottom_up.res4.non_local_1
    assert block.out.norm.weight.grad.abs().sum() > 0
    (output,) = model.eval()([image])
    assert output["instances"].image_size == (64, 64)
