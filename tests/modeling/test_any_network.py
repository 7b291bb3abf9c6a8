"""Blocks in the stages of networks of torchvision, timm and Detectron2: the table of docs/pipelines.md."""

import logging
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torchvision
from torch import Tensor, nn

from nl_detectron import NonLocalBlock, insert_non_local, summarize_non_local
from nl_detectron.checkpoint import Checkpointer
from nl_detectron.modeling import non_local_blocks

IMAGE, CLIP = (1, 3, 64, 64), (1, 3, 4, 32, 32)


def torchvision_model(name: str, **arguments: object) -> nn.Module:
    return torchvision.models.get_model(name, weights=None, **arguments)


def detector(name: str) -> nn.Module:
    return torchvision_model(name, weights_backbone=None, min_size=64, max_size=64)


def timm_model(name: str, **arguments: object) -> nn.Module:
    return pytest.importorskip("timm").create_model(name, **arguments)


def detectron2_regnet() -> nn.Module:
    """A small one of its new baselines' kind."""
    regnet = pytest.importorskip("detectron2.modeling.backbone.regnet", reason="Detectron2 0.5 has none")
    sizes = {"depth": 10, "w_a": 24.0, "w_0": 24, "w_m": 2.5, "group_width": 8}
    return regnet.RegNet(
        stem_class=regnet.SimpleStem,
        stem_width=32,
        block_class=regnet.ResBottleneckBlock,
        norm="BN",
        out_features=["s1", "s2", "s3"],
        **sizes,
    )


# The network, its input, the stage, its whole path, and the channels and dimensions of its maps.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str, str, int, int]] = {
    "resnet18": (partial(torchvision_model, "resnet18"), IMAGE, "layer3", "layer3", 256, 2),
    "resnet50": (partial(torchvision_model, "resnet50"), IMAGE, "layer3", "layer3", 1024, 2),
    "resnext50": (partial(torchvision_model, "resnext50_32x4d"), IMAGE, "layer2", "layer2", 512, 2),
    "regnet": (partial(torchvision_model, "regnet_y_400mf"), IMAGE, "block3", "trunk_output.block3", 208, 2),
    "mask_rcnn": (
        *(partial(detector, "maskrcnn_resnet50_fpn"), IMAGE),
        *("layer3", "backbone.body.layer3", 1024, 2),
    ),
    "keypoint_rcnn": (
        *(partial(detector, "keypointrcnn_resnet50_fpn"), IMAGE),
        *("body.layer4", "backbone.body.layer4", 2048, 2),
    ),
    "r3d_18": (partial(torchvision_model, "r3d_18"), CLIP, "layer3", "layer3", 256, 3),
    "mc3_18": (partial(torchvision_model, "mc3_18"), CLIP, "layer3", "layer3", 256, 3),
    "r2plus1d_18": (partial(torchvision_model, "r2plus1d_18"), CLIP, "layer2", "layer2", 128, 3),
    "timm_resnet": (partial(timm_model, "resnet26"), IMAGE, "layer3", "layer3", 1024, 2),
    "timm_resnext": (partial(timm_model, "resnext26ts"), IMAGE, "stages.2", "stages.2", 1024, 2),
    "timm_regnet": (partial(timm_model, "regnety_002"), IMAGE, "s3", "s3", 152, 2),
    "timm_features": (
        *(partial(timm_model, "seresnet50", features_only=True), IMAGE, "layer3", "layer3", 1024, 2),
    ),
    "detectron2_regnet": (detectron2_regnet, IMAGE, "s3", "s3", 152, 2),
}


def outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The maps or scores of a network; of a detector, the maps of its backbone."""
    given = getattr(model, "backbone", model)(x)
    return [*given.values()] if isinstance(given, dict) else [given] if isinstance(given, Tensor) else given


@pytest.mark.parametrize("name", NETWORKS)
def test_a_block_changes_nothing_but_learns(name: str) -> None:
    """Keys stay, the output is the same to the bit, the mode too, and gradients reach the block."""
    build, size, path, whole_path, channels, dim = NETWORKS[name]
    torch.manual_seed(0)
    model = build().eval()
    x, state = torch.rand(size), model.state_dict()
    with torch.no_grad():
        expected = outputs(model, x)
    model.train()
    assert insert_non_local(model, {path: [-1]}) is model
    assert all(module.training for module in model.modules())
    ((block_name, block),) = non_local_blocks(model)
    assert block_name.rsplit(".", 1)[0] == whole_path
    assert (block.in_channels, block.dim) == (channels, dim)
    added = {f"{block_name}.{key}" for key in block.state_dict()}
    new_state = model.state_dict()
    assert [key for key in new_state if key not in added] == [*state]
    assert all(new_state[key].equal(value) for key, value in state.items())
    model.eval()
    given = outputs(model, x)
    assert all(a.equal(b) for a, b in zip(given, expected, strict=True))
    given[-1].square().sum().backward()
    assert block.out.norm.weight.grad.abs().max() > 0
    assert f"  {block_name}: C={channels}, d={channels // 2}, " in summarize_non_local(model)


def test_weights_of_the_baseline_load(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    """The report names the block, and nothing else is missing."""
    torch.manual_seed(1)
    torch.save(torchvision_model("resnet18").state_dict(), tmp_path / "resnet18.pth")
    model = insert_non_local(torchvision_model("resnet18"), {"layer3": [-1]})
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "resnet18.pth"))
    assert "layer3.non_local_1" in caplog.text
    state = torch.load(tmp_path / "resnet18.pth")
    assert all(model.state_dict()[key].equal(value) for key, value in state.items())


class Walker(nn.Module):
    """Three blocks, walked as `walk` says."""

    def __init__(
        self, walk: Callable[["Walker", Tensor], Tensor], stage: type[nn.Module] = nn.Sequential
    ) -> None:
        super().__init__()
        blocks = [
            nn.Conv2d(4, 4, 3, padding=1),
            nn.Sequential(nn.Conv2d(4, 4, 1)),
            nn.Sequential(nn.Conv2d(4, 6, 1)),
        ]
        self.stage = stage(blocks) if stage is nn.ModuleList else stage(*blocks)
        self.alias = (*self.stage,)
        self.walk = walk

    def forward(self, x: Tensor) -> Tensor:
        return self.walk(self, x)


def by_index(walker: Walker, x: Tensor) -> Tensor:
    for k in range(len(walker.stage)):
        x = walker.stage[k](x)
    return x


def by_child(walker: Walker, x: Tensor) -> Tensor:
    for child in walker.stage:
        x = child(x)
    return x


def by_alias(walker: Walker, x: Tensor) -> Tensor:
    for child in walker.alias:
        x = child(x)
    return x


def by_fixed_index(walker: Walker, x: Tensor) -> Tensor:
    for k in range(3):
        x = walker.stage[k](x)
    return x


WAYS = [
    (lambda walker, x: walker.stage(x), nn.Sequential, True),
    (by_child, nn.Sequential, True),
    (by_child, nn.ModuleList, True),
    (by_index, nn.Sequential, True),
    (by_index, nn.ModuleList, False),  # a list's index is the name of a child
    (by_alias, nn.Sequential, False),
    (by_alias, nn.ModuleList, False),
    (by_fixed_index, nn.Sequential, False),
]


@pytest.mark.parametrize(("walk", "stage", "runs"), WAYS)
def test_how_a_stage_is_walked(walk: Callable, stage: type[nn.Module], runs: bool) -> None:
    """A block that would not run, or keep another from running, is refused, and nothing changes."""
    model = nn.ModuleDict({"net": Walker(walk, stage)})
    keys = [*model.state_dict()]
    if runs:
        insert_non_local(model, {"stage": [1]})
        assert [name for name, _ in model.net.stage.named_children()] == ["0", "non_local_1", "1", "2"]
        return
    with pytest.raises(
        ValueError, match=r"^stage must be a stage that runs all its children in order"
    ) as error:
        insert_non_local(model, {"stage": [1]})
    assert f"In this {stage.__name__}, a block would not run" in str(error.value)
    assert [*model.state_dict()] == keys
    assert [name for name, _ in model.net.stage.named_children()] == ["0", "1", "2"]


def test_channels_that_must_be_given() -> None:
    """No convolution tells them, or two disagree; given ones that are wrong are refused."""
    linear = nn.ModuleDict({"stage": nn.Sequential(nn.ReLU(), nn.ReLU())})
    with pytest.raises(
        ValueError, match="^in_channels must be given for stage, as .* place 1 are missing; got None"
    ):
        insert_non_local(linear, {"stage": [1]})
    insert_non_local(linear, {"stage": [1]}, in_channels=8, dim=1)
    assert linear.stage.non_local_1.theta.weight.shape == (4, 8, 1)
    shuffled = [nn.Conv2d(3, 8, 1), nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(32, 8, 1))]
    model = nn.Sequential(nn.Sequential(*shuffled))
    with pytest.raises(ValueError, match="place 1 say 8 and 32; got None. It is C"):
        insert_non_local(model, {"0": [1]})
    with pytest.raises(
        ValueError, match="^0 must be a stage that .* of the block's channels; .* give in_channels"
    ):
        insert_non_local(model, {"0": [1]}, in_channels=32)
    assert not any(isinstance(module, NonLocalBlock) for module in model.modules())
    insert_non_local(model, {"0": [1]}, in_channels=8)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 8, 4, 4)


def half(walker: Walker, x: Tensor) -> Tensor:
    return walker.stage[:2](x)


def nothing(walker: Walker, x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("walk", [half, nothing])
def test_a_stage_that_is_not_run_as_a_whole(walk: Callable) -> None:
    model = Walker(walk)
    with pytest.raises(ValueError, match=r"^stage must be a stage that runs all its children in order"):
        insert_non_local(model, {"stage": [1]})
    assert not any(isinstance(module, NonLocalBlock) for module in model.modules())


def of_a_dict(walker: Walker, x: dict[str, Tensor]) -> Tensor:
    return walker.stage(x["image"])


def test_a_model_that_cannot_be_tried(caplog: pytest.LogCaptureFixture) -> None:
    """Its stage is, and a warning says so; what does not run by itself is refused."""
    model = insert_non_local(Walker(of_a_dict), {"stage": [-1]})
    assert "No part of the model around stage runs on a map alone" in caplog.text
    assert model({"image": torch.rand(1, 4, 8, 8)}).shape == (1, 6, 8, 8)
    with pytest.raises(ValueError, match="^stage must be a stage that"):
        insert_non_local(Walker(of_a_dict), {"stage": [-1]}, in_channels=8)
    with pytest.raises(ValueError, match="^stage must be a stage that"):
        insert_non_local(Walker(of_a_dict, nn.ModuleList), {"stage": [-1]})
    tokens = torchvision.models.vit_b_32(weights=None)
    with pytest.raises(ValueError, match="^encoder.layers must be a stage that"):
        insert_non_local(tokens, {"encoder.layers": [-1]}, in_channels=768)


def test_a_network_that_needs_large_images() -> None:
    """alexnet fails on 32 pixels, and shows on 224 that the given channels are wrong."""
    with pytest.raises(ValueError, match="^features must be a stage that"):
        insert_non_local(torchvision_model("alexnet"), {"features": [3]}, in_channels=8)
    insert_non_local(torchvision_model("alexnet"), {"features": [3]})


def test_one_stage_by_two_paths() -> None:
    model = nn.Sequential(torchvision_model("resnet18"))
    with pytest.raises(ValueError, match="0.layer3 is there already"):
        insert_non_local(model, {"layer3": [1], "0.layer3": [0]})
    assert not any(isinstance(module, NonLocalBlock) for module in model.modules())


def test_channels_beyond_a_pool() -> None:
    """A block that has no convolution keeps the channels."""
    model = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 1), nn.MaxPool2d(2), nn.ReLU()))
    insert_non_local(model, {"0": [1, 2, 3]})
    assert [block.in_channels for _, block in non_local_blocks(model)] == [8, 8, 8]
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 8, 4, 4)


def test_names_of_stages() -> None:
    model = torchvision_model("resnet18")
    with pytest.raises(
        ValueError, match=r"^layer9 must be empty, .*Its stages: layer1, layer2, layer3, layer4\.$"
    ):
        insert_non_local(model, {"layer3": [-1], "layer9": [-1]})
    pair = nn.ModuleDict({"rgb": model, "flow": torchvision_model("resnet18")})
    with pytest.raises(ValueError, match=r"There are rgb.layer3, flow.layer3: give more of the path"):
        insert_non_local(pair, {"layer3": [-1]})
    insert_non_local(pair, {"flow.layer3": [0, 2]})
    assert [name for name, _ in non_local_blocks(pair)] == [
        "flow.layer3.non_local_0",
        "flow.layer3.non_local_2",
    ]


def test_the_trial_is_in_evaluation_mode() -> None:
    """Dropout would draw random numbers."""
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(), nn.Conv2d(4, 4, 1))).train()
    seen = []
    net[0][1].register_forward_hook(lambda module, *_: seen.append(module.training))
    insert_non_local(net, {"0": [1]})
    assert seen
    assert not any(seen)
    assert all(module.training for module in net.modules())


def test_statistics_and_hooks_stay() -> None:
    """The trial leaves no trace."""
    model = torchvision_model("r3d_18").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    insert_non_local(model, {"layer4": [0]})
    assert all(model.state_dict()[key].equal(value) for key, value in before.items())
    assert not any(module._forward_hooks for module in model.modules())
