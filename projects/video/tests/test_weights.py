"""Weights of images and of the authors' Caffe2 models, in networks of clips."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from lively_norms import with_lively_norms
from nl_detectron_interop import export_block
from nl_video import PLACES, add_non_local, c2d, i3d
from nl_video.weights import load_weights
from torch import Tensor, nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

CAFFE2 = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "downsample.0": "branch1"}
NORMS = {"bn1": "branch2a", "bn2": "branch2b", "bn3": "branch2c", "downsample.1": "branch1"}
STATISTICS = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}


def as_caffe2(net: nn.Module, has_statistics: bool = True) -> dict[str, np.ndarray]:
    """The blobs of a network, named as in lib/models/resnet_video.py of video-nonlocal-net."""
    blobs = {
        "conv1_w": net.conv1.weight,
        "pred_w": net.fc.weight[:, :, None, None, None],
        "pred_b": net.fc.bias,
    }
    blobs["lr"], blobs["conv1_w_momentum"] = torch.zeros(1), torch.zeros(3)
    norms = {"res_conv1_bn": net.bn1}
    for stage in (1, 2, 3, 4):
        for k, block in getattr(net, f"layer{stage}").named_children():
            if k.isdecimal():
                prefix = f"res{stage + 1}_{k}_"
                convs = {name: dict(block.named_modules()).get(name) for name in CAFFE2}
                blobs |= {
                    f"{prefix}{CAFFE2[n]}_w": conv.weight for n, conv in convs.items() if conv is not None
                }
                found = {name: dict(block.named_modules()).get(name) for name in NORMS}
                norms |= {
                    f"{prefix}{NORMS[name]}_bn": norm for name, norm in found.items() if norm is not None
                }
    for name, norm in norms.items():
        kept = [*STATISTICS] if has_statistics else ["weight", "bias"]
        blobs |= {f"{name}_{STATISTICS[each]}": getattr(norm, each) for each in kept}
    for path, block in non_local_blocks(net):
        stage, place = int(path[len("layer")]), int(path.rpartition("_")[2])
        theirs = export_block(block, "caffe2")
        blobs |= {f"nonlocal_conv{stage + 1}_{place - 1}_{name}": tensor for name, tensor in theirs.items()}
    return {name: np.asarray(value.detach()) for name, value in blobs.items()}


def write_pickle(path: Path, blobs: dict[str, np.ndarray]) -> str:
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    return str(path)


def scores(net: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return net.eval()(torch.randn(2, 3, 8, 32, 32, generator=generator))


@pytest.mark.parametrize("build", [c2d, i3d])
def test_the_authors_models(build, tmp_path: Path) -> None:
    """Synthetic blobs give the same scores as the network that they were taken from, blocks included."""
    net = with_lively_norms(add_non_local(build(50, num_classes=9), PLACES[5][50]))
    path = write_pickle(tmp_path / "model.pkl", as_caffe2(net))
    other = add_non_local(build(50, num_classes=9), PLACES[5][50])
    assert load_weights(other, path) == ""
    torch.testing.assert_close(scores(other), scores(net), rtol=1e-4, atol=1e-4)


def test_norms_that_are_merged_into_a_scale_and_a_shift(tmp_path: Path) -> None:
    """As in ImageNet's of Detectron2 (MSRA), and in the authors' models of 128 frames."""
    net = with_lively_norms(c2d(50, num_classes=9))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.zero_()
            module.running_var.fill_(1)
    other = c2d(50, num_classes=9)
    assert (
        load_weights(other, write_pickle(tmp_path / "model.pkl", as_caffe2(net, has_statistics=False))) == ""
    )
    torch.testing.assert_close(scores(other), scores(net))


def test_torchvisions_and_detectron2s_images(tmp_path: Path) -> None:
    """They are the same; kernels over time are inflated; the classifier of 1000 classes is not taken."""
    images = with_lively_norms(torchvision.models.resnet50())
    torch.save(images.state_dict(), tmp_path / "torchvision.pth")
    renamed = {}
    for name, value in images.state_dict().items():
        for stage in (1, 2, 3, 4):
            name = name.replace(f"layer{stage}.", f"res{stage + 1}.").replace(
                f"bn{stage}.", f"conv{stage}.norm."
            )
        name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        renamed[name if name.startswith(("res", "fc")) else f"stem.{name}"] = value.numpy()
    with (tmp_path / "R-50.pkl").open("wb") as file:
        pickle.dump({"model": renamed, "__author__": "torchvision", "matching_heuristics": True}, file)
    nets = [add_non_local(i3d(50, num_classes=9), PLACES[1][50]) for _ in range(2)]
    for net, name in zip(nets, ("torchvision.pth", "R-50.pkl"), strict=True):
        assert load_weights(net, str(tmp_path / name)) == "fc, layer3.non_local_5"
        net.fc.load_state_dict({"weight": torch.ones(9, 2048), "bias": torch.zeros(9)})
    assert scores(nets[0]).equal(scores(nets[1]))
    kernel = nets[0].layer3[0].conv1.weight
    assert kernel.shape[2:] == (3, 1, 1)
    torch.testing.assert_close(kernel.sum(2), images.layer3[0].conv1.weight)


def test_our_own_checkpoints(tmp_path: Path) -> None:
    net = with_lively_norms(add_non_local(c2d(50, num_classes=9), PLACES[1][50]))
    state = {f"net.{name}": value for name, value in net.state_dict().items()}
    torch.save({"model": state, "iteration": 3}, tmp_path / "model_final.pth")
    other = add_non_local(c2d(50, num_classes=9), PLACES[1][50])
    assert load_weights(other, str(tmp_path / "model_final.pth")) == ""
    assert scores(other).equal(scores(net))


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        UserError, match=r"resnet18.pth does not fit: it lacks \d+ of \d+ tensors, or has other shapes"
    ):
        load_weights(c2d(50), str(tmp_path / "resnet18.pth"))
