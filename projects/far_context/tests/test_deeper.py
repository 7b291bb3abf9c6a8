"""The control: one more residual block where the non-local block would be."""

import pytest
import torch
from detectron2.modeling import build_model
from far_context.folder import Experiment
from far_context.matrix import Training
from torch import nn


def stages(experiment: Experiment, training_of: dict[str, Training], norm: str) -> list[nn.Module]:
    """Stage res4 of the baseline, and of the control from the same seed."""
    built = []
    for place in ("mask/baseline/seed_1", "mask/residual_res4/seed_1"):
        cfg = experiment.cfg(training_of[place])
        cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM = "cpu", norm
        torch.manual_seed(3)
        built.append(build_model(cfg).backbone.bottom_up.res4)
    return built


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_it_is_a_new_block_that_starts_as_the_identity_and_learns(
    norm: str, experiment: Experiment, training_of: dict[str, Training]
) -> None:
    baseline, stage = stages(experiment, training_of, norm)
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
