"""Blocks in models of several kinds, what is refused, and the summary."""

import logging

import pytest
import torch
from detectron2.modeling.backbone.resnet import BottleneckBlock, DeformBottleneckBlock
from small_models import head, order, resnet

from nl_detectron import (
    NonLocalBlock,
    insert_non_local,
    insert_non_local_keypoint,
    summarize_non_local,
)
from nl_detectron.modeling import insert_child


def test_resnext_and_deformable_blocks() -> None:
    grouped = insert_non_local(resnet([1, 1, 2, 1], BottleneckBlock, num_groups=4), {"res4": [-1]})
    grouped(torch.randn(1, 3, 64, 64))
    deformable = resnet([1, 1, 2, 1], DeformBottleneckBlock)
    deformable = insert_non_local(deformable, {"res4": [-1, 2]})
    assert order(deformable.res4) == ["0", "non_local_1", "1", "non_local_2"]
    deformable(torch.randn(1, 3, 64, 64))


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
        ({"res4": 1}, "res4 must be a list of integers.*got 1"),
        ({"res4": 0}, "res4 must be a list of integers.*got 0"),
        ({"res4": "1"}, "res4 must be a list of integers.*got '1'"),
        ({"res5": [0]}, r"res5 must be empty, as ResNet has .*; got \[0\]. Its stages: res2, res3, res4\.$"),
        ({"res4": []}, r"res4 must be a list with a block.*got \[\]"),
        ({}, "placement must be a list with a block"),
        ({"res3": []}, r"res3 must be a list with a block.*got \[\]"),
        ({"res4": "", "res3": [0]}, "res4 must be a list of integers.*got ''"),
        ({"rez4": [0], "res3": [0]}, "rez4 must be empty, as ResNet has no such stage"),
        ({"res4": [0], "res3.0": [-1]}, "res3.0 must be a stage that runs all its children in order"),
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


def test_a_keypoint_head_with_blocks_is_refused() -> None:
    model = insert_non_local_keypoint(head(2))
    with pytest.raises(ValueError, match="without blocks"):
        insert_non_local_keypoint(model)


def test_other_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="res4 must be empty, as Linear has no .* Its stages: none"):
        insert_non_local(torch.nn.Linear(1, 1), {"res4": [-1]})
    with pytest.raises(ValueError, match="head must be a Detectron2 KRCNN.*got 'Linear'"):
        insert_non_local_keypoint(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match="dim must be 2, as for the convolutions of res4; got 3"):
        insert_non_local(resnet([1, 1, 1, 1]), {"res4": [-1]}, dim=3)
    two = torch.nn.ModuleList([resnet([1, 1, 1, 1]), resnet([1, 1, 1, 1])])
    with pytest.raises(ValueError, match="the path of one stage; .* 0.res4, 1.res4: give more of the path"):
        insert_non_local(two, {"res4": [-1]})


def test_summary() -> None:
    assert summarize_non_local(resnet([1, 1, 1, 1])) == "no non-local block (a baseline)"
    model = insert_non_local(resnet([1, 1, 2, 1]), {"res3": [0], "res4": [-1]})
    first, *lines = summarize_non_local(model).splitlines()
    assert first == "2 non-local blocks:"
    assert ["res3.non_local_0" in lines[0], "res4.non_local_1" in lines[1]] == [True, True]
    assert "C=32, d=16, pairwise='embedded_gaussian'" in lines[1]
    # 50 x 84 positions i and 25 x 42 j: 2 (N + M) C d + 2 N M d = 0.1465 G; 0.144 G with a side rounded down
    assert "0.15 GMAC for 793 x 1333 pixels" in summarize_non_local(model, (793, 1333)).splitlines()[2]


def test_summary_of_a_resnet_with_other_modules() -> None:
    """They need not have a stride, as Detectron2's blocks do."""
    model = insert_non_local(resnet([1, 1, 2, 1]), {"res4": [-1]})
    alone = summarize_non_local(model, (64, 64))
    insert_child(model.res3, "dropout", torch.nn.Dropout2d(), before=None)
    assert summarize_non_local(model, (64, 64)) == alone
