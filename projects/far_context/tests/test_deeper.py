"""The control: one more residual block where the non-local block would be."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from far_context.deeper import build_deeper_resnet_fpn_backbone
from far_context.folder import Experiment
from made_up_trainings import TRAINING


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_it_is_a_new_block_that_starts_as_the_identity_and_learns(norm: str, experiment: Experiment) -> None:
    """Built from the baseline's seed, right before the last block of res4, under a name that moves no key."""
    cfg = experiment.cfg(TRAINING["mask/residual_res4/seed_1"])
    assert build_deeper_resnet_fpn_backbone.__name__ == cfg.MODEL.BACKBONE.NAME
    cfg.MODEL.RESNETS.NORM = norm
    stages = []
    for build in (build_resnet_fpn_backbone, build_deeper_resnet_fpn_backbone):
        torch.manual_seed(3)
        stages.append(build(cfg, ShapeSpec(channels=3)).bottom_up.res4)
    baseline, stage = stages
    assert [name for name, _ in stage.named_children()] == ["0", "1", "2", "3", "4", "more", "5"]
    more, last = stage.more.state_dict(), stage[-1].state_dict()
    assert {key: value.shape for key, value in more.items()} == {k: v.shape for k, v in last.items()}
    for key in ("conv1.weight", "conv2.weight"):
        assert not more[key].equal(last[key])
        fan_out = more[key].shape[0] * more[key].shape[2:].numel()
        torch.testing.assert_close(more[key].std(), torch.tensor((2 / fan_out) ** 0.5), rtol=0.1, atol=0)
    x = torch.randn(2, stage[0].in_channels, 8, 8)
    expected, out = baseline(x), stage(x)
    assert out.equal(expected)
    out.square().sum().backward()
    parameter = stage.more.conv3.norm.weight if norm == "BN" else stage.more.conv3.weight
    assert parameter.grad.abs().max() > 0
