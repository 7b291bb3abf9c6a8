"""The matrix: arms of a task differ in what they say, and begin alike."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from experimenting.matrix import ARMS, GROUPS, PLACES, SEEDS, Arm, trainings
from nl_detectron.results.pairing import config_setting

from nl_detectron.config import check_placement_is_used
from nl_detectron.errors import ArgumentError
from nl_detectron.modeling import non_local_blocks

with_first = pytest.mark.parametrize(
    ("first", "arm"),
    [(group[0], arm) for group in GROUPS.values() for arm in group[1:]],
    ids=lambda arm: arm.path,
)


def on_cpu(arm: Arm) -> CfgNode:
    cfg = arm.cfg()
    cfg.MODEL.DEVICE = "cpu"
    return cfg


@with_first
def test_nothing_but_the_arm_differs(first: Arm, arm: Arm) -> None:
    """The same data, schedule and model but for blocks, or the one more residual block."""
    assert config_setting(arm.cfg()) == config_setting(first.cfg())
    check_placement_is_used(arm.cfg(), arm.keys[::2])


@with_first
def test_the_same_initial_weights(first: Arm, arm: Arm) -> None:
    """In all that arms share but blocks, and the random numbers of the training after it too."""
    states = []
    for each in (first, arm):
        torch.manual_seed(3)
        model = build_model(on_cpu(each))
        blocks = tuple(f"{name}." for name, _ in non_local_blocks(model))
        state = {key: value for key, value in model.state_dict().items() if not key.startswith(blocks)}
        states.append(state | {"next draw": torch.rand(1)})
    one, other = states
    assert all(other[key].equal(value) for key, value in one.items())
    assert set(other) - set(one) == {key for key in other if ".res4.more." in key}


def test_each_arm_is_another() -> None:
    assert len({arm.path for arm in ARMS}) == len(ARMS)
    assert len({arm.cfg().dump() for arm in ARMS}) == len(ARMS)
    assert {arm for group in GROUPS.values() for arm in group} == set(ARMS)
    for group in GROUPS.values():
        assert len({arm.name for arm in group}) == len(group)
        assert len({(arm.task, arm.start) for arm in group}) == 1
    assert [group[0].name for group in GROUPS.values()] == ["baseline", PLACES[1].name, "baseline"]


def test_order() -> None:
    """The main pair first, seed by seed; then the keypoint arms; then the others."""
    order = [(training.arm.path, training.seed) for training in trainings()]
    assert order[:6] == [(f"mask/{arm}", seed) for seed in SEEDS for arm in ("baseline", "nl_res4")]
    keypoint = ["keypoint/baseline", "keypoint/nl_head", "keypoint/nl_head_res4"]
    assert order[6:15] == [(arm, seed) for seed in SEEDS for arm in keypoint]
    assert [seed for _, seed in order[15:]] == sorted(seed for _, seed in order[15:])
    assert len(set(order)) == len(order) == len(ARMS) * len(SEEDS)


@pytest.mark.parametrize(
    ("patterns", "seeds", "expected"),
    [
        (["mask/nl_res4"], [2], ["mask/nl_res4/seed_2"]),
        (["mask/nl_res?"], [1], ["mask/nl_res4/seed_1", "mask/nl_res3/seed_1"]),
        (["keypoint/??_head*4", "keypoint/baseline", "mask/baseline"], [3, 3], [
            "mask/baseline/seed_3", "keypoint/baseline/seed_3",
            "keypoint/nl_head_res4/seed_3",
        ]),
        (["mask/gn"], [], ["mask/gn/seed_1", "mask/gn/seed_2", "mask/gn/seed_3"]),
    ],
)  # fmt: skip
def test_what_is_asked_for(patterns: list[str], seeds: list[int], expected: list[str]) -> None:
    assert [f"{each.arm.path}/seed_{each.seed}" for each in trainings(patterns, seeds)] == expected


def test_what_is_not_there() -> None:
    with pytest.raises(
        ArgumentError, match=r"^--arm must be of the matrix; got 'mask/res4'. It has mask/base"
    ):
        trainings(["mask/*", "mask/res4"])
    with pytest.raises(ArgumentError, match=r"^--seed must be one of 1, 2, 3; got 4\. See --list\.$"):
        trainings(seeds=[1, 4])
