"""The matrix: arms differ only in what their names say, and start alike."""

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from far_context.controls import ADDED, CHANGED
from far_context.folder import Experiment
from far_context.matrix import (
    ARMS,
    BASELINE,
    ENDS,
    GROUPS,
    KEYPOINT,
    LONGER,
    MAIN_PAIR,
    PLACES,
    SEEDS,
    TUNED,
    TUNED_ENDS,
    WHY_CONCATENATION,
    WHY_DOT_PRODUCT,
    Arm,
    Training,
    trainings,
    with_starts,
)

from nl_detectron.config import BASELINES, KEYPOINT_HEAD, check_non_local_keys
from nl_detectron.engine import flat_pairs
from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

PAIRS = list(dict.fromkeys((group[0], arm) for group in GROUPS.values() for arm in group[1:]))
EXPERIMENT = Experiment(Path("out"), 2, 2)
DEEPER_HEADS = ENDS[3], TUNED_ENDS[3]  # whose convolutions change all random numbers after them
STATED = {  # the keys, other than those of blocks, that an arm's name stands for
    **{arm: {"MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS"} for arm in DEEPER_HEADS},
    **{arm: {"SOLVER.MAX_ITER", "SOLVER.STEPS"} for arm in (LONGER, WHY_DOT_PRODUCT[1])},
    WHY_CONCATENATION[3]: {"SOLVER.WEIGHT_DECAY"},
    WHY_CONCATENATION[4]: {"SOLVER.BASE_LR"},
}


def setting(arm: Arm) -> dict[str, object]:
    """All keys of an arm's config but those of blocks, with Detectron2's builders in place of others."""
    keys = dict(flat_pairs(EXPERIMENT.cfg(Training(arm, 1))))
    controls = [f"build_{name}_resnet_fpn_backbone" for name in (*ADDED, *CHANGED)]
    known = BASELINES | {"StartedKeypointHead": BASELINES[KEYPOINT_HEAD]}
    known |= dict.fromkeys(controls, "build_resnet_fpn_backbone")
    for key in ("MODEL.BACKBONE.NAME", "MODEL.ROI_KEYPOINT_HEAD.NAME"):
        keys[key] = known.get(keys[key], keys[key])
    return {
        key: value for key, value in keys.items() if not key.startswith(("MODEL.NON_LOCAL.", "OUTPUT_DIR"))
    }


@pytest.mark.parametrize(("first", "arm"), PAIRS, ids=lambda arm: arm.path)
def test_only_the_arm_differs(first: Arm, arm: Arm) -> None:
    """Data, schedule and model are the same, and an arm sets no key that its model ignores."""
    one, other = setting(first), setting(arm)
    assert {key for key in one if one[key] != other[key]} == STATED.get(arm, set())
    check_non_local_keys(EXPERIMENT.cfg(Training(arm, 1)), arm.keys[::2])


@pytest.mark.parametrize(
    ("first", "arm"),
    [
        MAIN_PAIR,
        *(
            pytest.param(*pair, marks=pytest.mark.slow)  # the controls of others are in test_controls.py
            for pair in ((BASELINE, PLACES[-1]), (KEYPOINT[0], KEYPOINT[2]), (ENDS[0], ENDS[1]))
        ),
    ],
    ids=lambda arm: arm.path,
)
def test_the_same_initial_weights(first: Arm, arm: Arm) -> None:
    """In all that arms share but blocks, and the random numbers of the training after it too."""
    states = []
    for each in (first, arm):
        cfg = EXPERIMENT.cfg(Training(each, 1))
        cfg.MODEL.DEVICE = "cpu"
        torch.manual_seed(3)
        model = build_model(cfg)
        blocks = tuple(f"{name}." for name, _ in non_local_blocks(model))
        state = {key: value for key, value in model.state_dict().items() if not key.startswith(blocks)}
        states.append(state | {"next draw": torch.rand(1)})
    one, other = states
    assert all(other[key].equal(value) for key, value in one.items())
    assert set(other) == set(one)


def test_each_arm_is_another() -> None:
    assert len({arm.path for arm in ARMS}) == len(ARMS)
    configs = {EXPERIMENT.cfg(Training(arm, 1)).dump().replace(arm.path, "") for arm in ARMS}
    assert len(configs) == len(ARMS)
    assert {arm for group in GROUPS.values() for arm in group} == set(ARMS)
    for group in GROUPS.values():
        assert len({arm.name for arm in group}) == len(group)
        assert len({(arm.task, arm.start, arm.kind) for arm in group}) == 1


def test_pictures_are_of_the_kind_that_is_said() -> None:
    for arm in ARMS:
        names = EXPERIMENT.cfg(Training(arm, 1)).DATASETS.TRAIN
        words = {"one": "shapes_", "own": "shapes_own_", "ends": "shapes_ends_"}[arm.kind]
        prefix = "keypoints_" if arm.task == "keypoint" else ""
        assert names == (f"{prefix}{words}near_train", f"{prefix}{words}far_train")


def test_order() -> None:
    """The main pair first, seed by seed, and what starts from it; then the others."""
    order = [(training.arm.path, training.seed) for training in trainings()]
    assert order[:6] == [(f"mask/{arm}", seed) for seed in SEEDS for arm in ("baseline", "nl_res4")]
    assert order[6:24] == [(arm.path, seed) for seed in SEEDS for arm in TUNED]
    assert len(set(order)) == len(order) == sum(len(arm.seeds) for arm in ARMS)
    assert [seed for arm, seed in order if arm == LONGER.path] == [1]


@pytest.mark.parametrize(
    ("patterns", "seeds", "expected"),
    [
        (["mask/nl_res?"], [1], ["mask/nl_res4 1", "mask/nl_res3 1"]),
        (["keypoint/??_head*4", "mask/baseline"], [3, 3], ["mask/baseline 3", "keypoint/nl_head_res4 3"]),
        (["mask/gn"], [], ["mask/gn 1", "mask/gn 2", "mask/gn 3"]),
        (["mask/baseline_l*"], [], ["mask/baseline_longer 1"]),
    ],
)
def test_what_is_asked_for(patterns: list[str], seeds: list[int], expected: list[str]) -> None:
    assert [f"{each.arm.path} {each.seed}" for each in trainings(patterns, seeds)] == expected


def test_what_is_started_from_comes_before() -> None:
    asked = [*trainings(["keypoint/nl_head"], [2]), *trainings(["mask/gn"], [1])]
    places = [f"{each.arm.path} {each.seed}" for each in with_starts(asked)]
    assert places == ["mask/baseline 2", "keypoint/nl_head 2", "mask/gn 1"]


def test_what_is_not_there() -> None:
    with pytest.raises(
        UserError, match=r"^--arm 'mask/res4' matches no arm of the matrix. Its arms are mask/base"
    ):
        trainings(["mask/*", "mask/res4"])
    with pytest.raises(UserError, match=r"^--seed 4 is not in the matrix. Its seeds are \(1, 2, 3\)"):
        trainings(seeds=[1, 4])
    message = r"^The matrix has mask/baseline_longer with other seeds than \[2, 3\]\.$"
    with pytest.raises(UserError, match=message):
        trainings(["mask/baseline_longer"], seeds=[3, 2])
