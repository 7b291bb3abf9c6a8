"""Where insert_non_local puts blocks, and that nothing else of the ResNet or head moves."""

import copy
import logging

import pytest
import torch
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock, DeformBottleneckBlock
from small_models import BLOCKS_PER_STAGE, head, order, resnet

from nl_detectron import (
    NonLocalBlock,
    insert_non_local,
    insert_non_local_keypoint,
    summarize_non_local,
)


@pytest.mark.parametrize("depth", BLOCKS_PER_STAGE)
def test_every_depth(depth: int) -> None:
    model = resnet(BLOCKS_PER_STAGE[depth])
    keys = set(model.state_dict())
    insert_non_local(model, {"res4": [-1]})
    n = BLOCKS_PER_STAGE[depth][2]
    assert order(model.res4)[-3:] == [str(n - 2), f"non_local_{n - 1}", str(n - 1)]
    assert keys < set(model.state_dict())


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([0], ["non_local_0", "0", "1", "2"]),
        ([-3], ["non_local_0", "0", "1", "2"]),
        ([1], ["0", "non_local_1", "1", "2"]),
        ([-1], ["0", "1", "non_local_2", "2"]),
        ([3], ["0", "1", "2", "non_local_3"]),
        ([3, 0], ["non_local_0", "0", "1", "2", "non_local_3"]),
    ],
)
def test_index(indices: list[int], expected: list[str]) -> None:
    model = resnet([2, 2, 3, 2])
    insert_non_local(model, {"res4": indices})
    assert order(model.res4) == expected
    assert model.stages[2] is model.res4  # ResNet.forward walks `stages`


@pytest.mark.parametrize("block_class", [BasicBlock, BottleneckBlock], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_new_blocks_change_nothing(block_class: type, norm: str) -> None:
    baseline = resnet([2, 2, 3, 2], block_class, norm=norm).eval()
    model = insert_non_local(
        copy.deepcopy(baseline), {"res2": [1], "res3": [0, -1], "res4": [3], "res5": [1]}
    )
    image = torch.randn(2, 3, 96, 64)
    expected, features = baseline(image), model(image)
    assert all(features[name].equal(expected[name]) for name in expected)
    model.res4.non_local_3.out.norm.weight.data.fill_(1)
    assert not model(image)["res4"].equal(expected["res4"])


def test_resnext_and_deformable_blocks() -> None:
    grouped = insert_non_local(resnet([1, 1, 2, 1], BottleneckBlock, num_groups=4), {"res4": [-1]})
    grouped(torch.randn(1, 3, 64, 64))
    deformable = resnet([1, 1, 2, 1], DeformBottleneckBlock)
    deformable = insert_non_local(deformable, {"res4": [-1, 2]})
    assert order(deformable.res4) == ["0", "non_local_1", "1", "non_local_2"]
    deformable(torch.randn(1, 3, 64, 64))


def test_block_before_the_first_has_the_channels_and_stride_of_the_stage_before() -> None:
    model = insert_non_local(resnet([1, 1, 2, 1]), {"res4": [0, 1]})
    assert model.res4.non_local_0.in_channels == 16
    assert model.res4.non_local_1.in_channels == 32
    assert model(torch.randn(1, 3, 64, 64))["res4"].shape[2:] == (4, 4)


def test_into_a_built_model() -> None:
    """dtype and mode are those of the stage; blocks may come one after another."""
    model = resnet([1, 1, 3, 1]).double().eval()
    insert_non_local(model, {"res4": [-1]})
    insert_non_local(model, {"res4": [0, -2]}, pairwise="dot_product", norm="")
    assert order(model.res4) == ["non_local_0", "0", "non_local_1", "1", "non_local_2", "2"]
    block = model.res4.non_local_2
    assert block.theta.weight.dtype == torch.float64
    assert not block.training
    model(torch.randn(1, 3, 64, 64, dtype=torch.float64))


def test_frozen_stage_freezes_its_block(caplog: pytest.LogCaptureFixture) -> None:
    model = resnet([2, 2, 2, 2], freeze_at=2)
    with caplog.at_level(logging.WARNING):
        insert_non_local(model, {"res2": [-1], "res4": [-1]})
    assert not any(p.requires_grad for p in model.res2.parameters())
    assert all(p.requires_grad for p in model.res4.non_local_1.parameters())
    assert "frozen" in caplog.text
    assert "res2.non_local_1" in summarize_non_local(model)
    assert summarize_non_local(model).count("frozen") == 1


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"res4": [3]}, r"res4 must be a list of integers from -2 to 2.*got \[3\]"),
        ({"res4": [-3]}, r"res4 must be a list of integers from -2 to 2.*got \[-3\]"),
        ({"res4": [1, -1]}, r"res4 must be a list of places without.*got \[1, -1\]"),
        ({"res4": [True]}, r"res4 must be a list of integers.*got \[True\]"),
        ({"res4": 1}, "res4 must be a list of integers.*got 1"),
        ({"res4": 0}, "res4 must be a list of integers.*got 0"),
        ({"res4": "1"}, "res4 must be a list of integers.*got '1'"),
        ({"res5": [0]}, r"res5 must be empty, as only res2, res3, res4 are built; got \[0\]"),
        ({"res4": []}, r"res4 must be a list with a block.*got \[\]"),
        ({}, "res4 must be a list with a block"),
        ({"res4": "", "res3": [0]}, "res4 must be a list of integers.*got ''"),
        ({"rez4": [], "res3": [0]}, "placement must be a dict from res2, .*got 'rez4'"),
    ],
)
def test_bad_placement(placement: dict[str, object], message: str) -> None:
    model = resnet([2, 2, 2, 2], out_features=("res4",))
    with pytest.raises(ValueError, match=message):
        insert_non_local(model, placement)
    assert not any(isinstance(module, NonLocalBlock) for module in model.modules())


def test_taken_place_and_failed_call_change_nothing() -> None:
    model = insert_non_local(resnet([2, 2, 2, 2]), {"res4": [-1]})
    with pytest.raises(ValueError, match="places without"):
        insert_non_local(model, {"res3": [0], "res4": [1]})
    with pytest.raises(ValueError, match="pairwise"):
        insert_non_local(model, {"res3": [0]}, pairwise="none")
    assert sum(isinstance(module, NonLocalBlock) for module in model.modules()) == 1


@pytest.mark.parametrize(
    ("convolutions", "every", "after"),
    [(8, 2, [2, 4, 6, 8]), (8, 3, [3, 6]), (7, 2, [2, 4, 6]), (4, 1, [1, 2, 3, 4]), (1, 1, [1])],
)
def test_keypoint_head(convolutions: int, every: int, after: list[int]) -> None:
    baseline = head(convolutions).eval()
    model = insert_non_local_keypoint(copy.deepcopy(baseline), every)
    expected = []
    for k in range(1, convolutions + 1):
        expected += [f"conv_fcn{k}", f"conv_fcn_relu{k}"] + [f"non_local_{k}"] * (k in after)
    assert order(model) == [*expected, "score_lowres"]
    regions = torch.randn(3, 16, 14, 14)
    assert model.layers(regions).equal(baseline.layers(regions))


def test_keypoint_head_refuses() -> None:
    with pytest.raises(ValueError, match="every must be an integer from 1 to the 4"):
        insert_non_local_keypoint(head(4), every=5)
    model = insert_non_local_keypoint(head(2))
    with pytest.raises(ValueError, match="without blocks"):
        insert_non_local_keypoint(model)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="resnet must be a Detectron2 ResNet, or.*; got 'Linear'"):
        insert_non_local(torch.nn.Linear(1, 1), {"res4": [-1]})
    with pytest.raises(ValueError, match="head must be a Detectron2 KRCNN.*got 'Linear'"):
        insert_non_local_keypoint(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="dim must be 2, for maps of height and width; got 3"):
        insert_non_local(resnet([1, 1, 1, 1]), {"res4": [-1]}, dim=3)
    two = torch.nn.ModuleList([resnet([1, 1, 1, 1]), resnet([1, 1, 1, 1])])
    with pytest.raises(ValueError, match="or a model with one; got 'ModuleList with 2 of them'"):
        insert_non_local(two, {"res4": [-1]})


def test_summary() -> None:
    assert summarize_non_local(resnet([1, 1, 1, 1])) == "no non-local block (a baseline)"
    model = insert_non_local(resnet([1, 1, 2, 1]), {"res3": [0], "res4": [-1]})
    first, *lines = summarize_non_local(model).splitlines()
    assert first == "2 non-local blocks:"
    assert ["res3.non_local_0" in lines[0], "res4.non_local_1" in lines[1]] == [True, True]
    assert "C=32, d=16, pairwise='embedded_gaussian'" in lines[1]
