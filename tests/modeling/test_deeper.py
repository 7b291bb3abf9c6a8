"""The control: one more residual block where the non-local block would be."""

import torch
from detectron2.modeling import build_model

from nl_detectron import model_zoo
from nl_detectron.modeling import build_deeper_resnet_fpn_backbone


def test_one_more_residual_block() -> None:
    """Right before the last one, like it in all but its weights, under a name that moves no key."""
    cfg = model_zoo.get_config("quick_schedules/mask_rcnn_R_50_FPN_far.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = build_deeper_resnet_fpn_backbone.__name__
    torch.manual_seed(3)
    stage = build_model(cfg).backbone.bottom_up.res4
    assert [name for name, _ in stage.named_children()] == ["0", "1", "2", "3", "4", "more", "5"]
    more, last = stage.more.state_dict(), stage[-1].state_dict()
    assert {key: value.shape for key, value in more.items()} == {k: v.shape for k, v in last.items()}
    convolutions = [key for key in more if key in ("conv1.weight", "conv2.weight", "conv3.weight")]
    assert len(convolutions) == 3
    for key in convolutions:
        assert not more[key].equal(last[key])
        fan_out = more[key].shape[0] * more[key].shape[2:].numel()
        torch.testing.assert_close(more[key].std(), torch.tensor((2 / fan_out) ** 0.5), rtol=0.1, atol=0)
    stage.eval()
    x = torch.randn(1, stage[0].in_channels, 8, 8)
    assert stage(x).equal(stage[-1](stage.more(stage[:5](x))))
