"""The control: one more residual block where the non-local block would be."""

import pytest
import torch
from detectron2.modeling import build_model
from nl_detectron.results.names import blocks_of
from torch import nn

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of, check_placement_is_used
from nl_detectron.errors import ArgumentError
from nl_detectron.modeling import build_deeper_resnet_fpn_backbone

BASELINE = "quick_schedules/mask_rcnn_R_50_FPN_far.yaml"


def deeper(norm: str = "BN") -> tuple[nn.Module, nn.Module]:
    """Stage res4 of the baseline, and of the control from the same seed."""
    stages = []
    for name in ("build_resnet_fpn_backbone", build_deeper_resnet_fpn_backbone.__name__):
        cfg = model_zoo.get_config(BASELINE)
        cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS.NORM = "cpu", name, norm
        torch.manual_seed(3)
        stages.append(build_model(cfg).backbone.bottom_up.res4)
    return tuple(stages)


def test_one_more_residual_block() -> None:
    """Right before the last one, like it in all but its weights, under a name that moves no key."""
    _, stage = deeper()
    assert [name for name, _ in stage.named_children()] == ["0", "1", "2", "3", "4", "more", "5"]
    more, last = stage.more.state_dict(), stage[-1].state_dict()
    assert {key: value.shape for key, value in more.items()} == {k: v.shape for k, v in last.items()}
    for key in ("conv1.weight", "conv2.weight", "conv3.weight"):
        assert not more[key].equal(last[key])
        fan_out = more[key].shape[0] * more[key].shape[2:].numel()
        torch.testing.assert_close(more[key].std(), torch.tensor((2 / fan_out) ** 0.5), rtol=0.1, atol=0)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_it_begins_as_the_identity_and_learns(norm: str) -> None:
    baseline, stage = deeper(norm)
    x = torch.randn(2, stage[0].in_channels, 8, 8)
    expected, out = baseline(x), stage(x)
    assert out.equal(expected)
    out.square().sum().backward()
    parameter = stage.more.conv3.norm.weight if norm == "BN" else stage.more.conv3.weight
    assert parameter.grad.abs().max() > 0


def test_what_it_is_called() -> None:
    """It is a variant of the baseline, and one without non-local blocks."""
    cfg = model_zoo.get_config(BASELINE)
    baseline = cfg.clone()
    cfg.MODEL.BACKBONE.NAME = build_deeper_resnet_fpn_backbone.__name__
    assert baseline_of(cfg) == baseline
    assert blocks_of(cfg) == "+1 residual block in res4"
    check_placement_is_used(cfg)
    cfg.MODEL.NON_LOCAL.PAIRWISE = "gaussian"
    with pytest.raises(
        ArgumentError, match=r"MODEL.NON_LOCAL.PAIRWISE must be left alone where nothing reads"
    ):
        check_placement_is_used(cfg)
