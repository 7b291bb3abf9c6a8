"""Weights of other trainers and libraries: found, renamed, and numerically right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer, last_intact_checkpoint, read_checkpoint
from nl_detectron.errors import UserError


def resnet(depth: int = 18) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.MODEL.BACKBONE.NAME = "cpu", "build_resnet_backbone"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.STRIDE_IN_1X1 = depth, False
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return build_backbone(cfg).eval()


def loaded(
    model: nn.Module, content: object, folder: Path, name: str = "weights.pth", **options: bool
) -> Checkpointer:
    torch.save(content, folder / name, **options)
    checkpointer = Checkpointer(model)
    checkpointer.is_quiet = True
    checkpointer.load(str(folder / name))
    return checkpointer


@pytest.mark.parametrize("name", ["resnet18", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_resnets_of_torchvision_compute_the_same(name: str, tmp_path: Path) -> None:
    theirs = getattr(torchvision.models, name)().eval()
    for norm in (module for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)):
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
    ours = resnet(int(name.removeprefix("resnet")))
    report = loaded(ours, {"state_dict": theirs.state_dict()}, tmp_path).report
    assert (report.loaded, report.fits) == (report.total, True)
    assert "INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [123.675, 116.28, 103.53], MODEL.PIXEL_STD [58.395, " in str(
        report
    )
    assert "STRIDE_IN_1X1 False" in str(report)
    with torch.no_grad():
        image = torch.randn(1, 3, 64, 96)
        features = ours(image)
        x: Tensor = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        for number in (1, 2, 3, 4):
            x = getattr(theirs, f"layer{number}")(x)
            torch.testing.assert_close(features[f"res{number + 1}"], x)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "loss": torch.tensor(1.0)},
        lambda state: {"model_state": state},
        lambda state: {"ema_state_dict": state, "decay": 0.9},
        lambda state: {"ema": {"module": state, "updates": 7}},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"module.model.{name}": tensor for name, tensor in state.items()}},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {name: tensor.numpy() for name, tensor in state.items()}},
    ],
)
def test_the_state_dict_is_found(wrap: Callable[[dict], dict], tmp_path: Path) -> None:
    source, target = resnet(), resnet()
    report = loaded(target, wrap(source.state_dict()), tmp_path).report
    assert report.loaded == report.total
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor), name


def test_the_trained_weights_come_before_their_average(tmp_path: Path) -> None:
    source, target = resnet(), resnet()
    average = {name: torch.zeros_like(tensor) for name, tensor in source.state_dict().items()}
    loaded(target, {"ema": average, "model": source.state_dict()}, tmp_path)
    assert torch.equal(target.stem.conv1.weight, source.stem.conv1.weight)
    own = nn.ModuleDict({"model": resnet()})  # whose names have a prefix that is not to be removed
    assert loaded(own, own.state_dict(), tmp_path).report.loaded == len(source.state_dict())


def test_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"weights.pth' fits no tensor of this model: it has a, b\. Give weights"
    ):
        loaded(resnet(), {"a": torch.ones(1), "b": torch.ones(1)}, tmp_path)


def test_numpys_numbers_and_the_older_format_are_intact(tmp_path: Path) -> None:
    content = {"model": resnet().state_dict(), "iteration": 7, "best": np.float64(1), "all": np.arange(3)}
    for number, options in enumerate(({}, {"_use_new_zipfile_serialization": False})):
        folder = tmp_path / str(number)
        folder.mkdir()
        loaded(resnet(), content, folder, "model_0000007.pth", **options)
        assert read_checkpoint(folder / "model_0000007.pth")["best"] == 1
        (folder / "last_checkpoint").write_text("model_0000007.pth")
        assert last_intact_checkpoint(folder) == folder / "model_0000007.pth"


class Other:
    """Not a tensor."""


def test_an_intact_checkpoint_with_more_in_it_is_not_called_damaged(tmp_path: Path) -> None:
    torch.save({"model": {}, "iteration": 1, "args": Other()}, tmp_path / "model_final.pth")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    with pytest.raises(
        UserError, match=r"model_final.pth is intact, but cannot be read: it holds more.*Other"
    ):
        last_intact_checkpoint(tmp_path)
