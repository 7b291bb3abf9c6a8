"""The forecast of a model: the maps that its blocks will see."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from nl_detectron import forecast_non_local, insert_non_local
from nl_detectron.layers import forecast_block
from nl_detectron.modeling import non_local_blocks


@pytest.mark.parametrize("size", [(224, 320), (97, 130)])
def test_maps_are_those_of_the_model(mask_cfg: CfgNode, size: tuple[int, int]) -> None:
    model = build_model(mask_cfg).eval()
    insert_non_local(model.backbone.bottom_up, {"res2": [0, 1], "res3": [0, 2], "res5": [0, 2]}, reduction=4)
    blocks = dict(non_local_blocks(model))
    shapes: dict[str, tuple[int, ...]] = {}
    for name, block in blocks.items():
        block.register_forward_hook(lambda _, args, __, name=name: shapes.update({name: args[0].shape[2:]}))
    model.backbone.bottom_up(torch.zeros(1, 3, *size))
    expected = [forecast_block(block, 2, tuple(shapes[name]), False) for name, block in blocks.items()]
    forecast = forecast_non_local(model, *size, images=2)
    assert len(expected) >= 6
    assert forecast.multiply_adds == sum(block.multiply_adds for block in expected)
    assert forecast.peak == max(block.peak for block in expected)


def test_keypoint_head(keypoint_cfg: CfgNode) -> None:
    model = build_model(keypoint_cfg)
    blocks = [block for name, block in non_local_blocks(model) if "keypoint_head" in name]
    expected = [forecast_block(block, 2 * 30, (14, 14), True) for block in blocks]
    with_head = forecast_non_local(model, 128, 128, images=2, rois=30, training=True)
    without = forecast_non_local(model, 128, 128, images=2, rois=0, training=True)
    assert blocks
    assert with_head.kept - without.kept == sum(block.kept for block in expected)
    assert with_head.multiply_adds - without.multiply_adds == sum(b.multiply_adds for b in expected)


def test_a_baseline_needs_nothing(mask_cfg: CfgNode) -> None:
    mask_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    assert forecast_non_local(build_model(mask_cfg), 800, 1333, training=True) == (0, 0, 0)
