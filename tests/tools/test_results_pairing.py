"""Which trainings tools/results.py compares with which, what it refuses, and the names of models."""

from pathlib import Path

import pytest
from made_up_runs import run

from nl_detectron import model_zoo
from nl_detectron.engine import Run
from nl_detectron.errors import UserError
from nl_detectron_cli.result_tables.pairing import Group, blocks_of, group_runs, label_of, without_partner
from nl_detectron_cli.result_tables.tables import result_table

FIVE_BLOCKS = "Ablations/mask_rcnn_R_50_FPN_nl_5_blocks_1x.yaml"
X152_NL = "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_3x.yaml"
KEYPOINT_NL = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml"


def note(*runs: Run) -> str:
    """What is said of the first run, which is without a partner."""
    said = without_partner(runs)[runs[0].folder]
    assert "\n" not in said
    return said.replace(f"{runs[0].folder.parent}/", "")


def names(groups: list[Group]) -> list[list[str]]:
    return [[run.folder.name for runs in group.values() for run in runs] for group in groups]


def test_pairs_have_the_same_seed(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, int(name[-1])) for name in ("nl_2", "base_1", "base_2", "nl_1")]
    runs.insert(1, run(tmp_path / "nl_dot_2", 2, 30.0, "MODEL.NON_LOCAL.PAIRWISE", "dot_product"))
    assert names(group_runs(runs)) == [["base_1", "base_2", "nl_1", "nl_2", "nl_dot_2"]]


def test_each_schedule_has_its_own_baseline(tmp_path: Path) -> None:
    runs = []
    for gamma in ("0.1", "0.5"):
        runs += [run(tmp_path / f"{name}_{gamma}", 1, 30.0, "SOLVER.GAMMA", gamma) for name in ("base", "nl")]
    assert names(group_runs(runs[::-1])) == [["base_0.1", "nl_0.1"], ["base_0.5", "nl_0.5"]]
    models = [row["model"] for row in result_table(group_runs(runs))]
    assert models == [f"Mask R-CNN R18-FPN, SOLVER.GAMMA {gamma}" for gamma in (0.1, 0.1, 0.1, 0.5, 0.5, 0.5)]


def test_what_the_nearest_has_instead_is_named(tmp_path: Path) -> None:
    nl = run(tmp_path / "nl", 1, 30.0, "SOLVER.BASE_LR", "0.01", "DATASETS.TRAIN", "('shapes_val',)")
    far = run(tmp_path / "far", 2, 30.0, "SOLVER.GAMMA", "0.5")
    assert note(nl, far, run(tmp_path / "base")) == (
        "nl has no baseline of the same setting and SEED beside it. The nearest, base, has DATASETS.TRAIN "
        '["shapes_train"] instead of ["shapes_val"], SOLVER.BASE_LR 0.02 instead of 0.01, images '
        '{"shapes_train": 12, "shapes_val": 6} instead of {"shapes_val": 6}.'
    )


def test_what_no_key_tells_is_compared_too(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", processes=8), run(tmp_path / "nl_segm", task="segm")
    message = note(nl, base)
    assert "The nearest, base, has processes 8 instead of 1, evaluation " in message
    assert message.endswith('"segm/AP", "segm/AP50", "segm/AP75"].')


def test_without_a_partner(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", 1), run(tmp_path / "nl", 2)
    rule = "of the same setting and SEED beside it."
    assert note(nl) == f"nl has no baseline {rule} Train one, or leave this out."
    assert note(base) == f"base has no run with non-local blocks {rule} Train one, or leave this out."
    message = f"base has no run with non-local blocks {rule} The nearest, nl, has SEED 2 instead of 1."
    assert note(base, nl) == note(base, nl, run(tmp_path / "base_2", 2)) == message
    assert without_partner([run(tmp_path / "base_2", 2), nl]) == {}


def test_the_same_training_twice(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in ("nl_one", "nl_other")]
    with pytest.raises(UserError, match=r"nl_one and .*nl_other are both \+1 NL in res4 with SEED 1"):
        group_runs(runs)


def test_images_that_are_not_resized_have_no_cost(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, 1, 30.0, "INPUT.MIN_SIZE_TEST", "0") for name in ("base", "nl")]
    rows = result_table(group_runs(runs))
    assert rows[-1]["blocks"] == "difference"
    assert not any("multiply-adds" in row for row in rows)


def test_names() -> None:
    for config, model, blocks in (
        (X152_NL, "Mask R-CNN X152-FPN", "+1 NL in res4"),
        (KEYPOINT_NL, "Keypoint R-CNN R101-FPN", "+4 NL in head, +1 NL in res4"),
        (FIVE_BLOCKS, "Mask R-CNN R50-FPN", "+2 NL in res3 [2, 4], +3 NL in res4 [2, 4, 6]"),
    ):
        cfg = model_zoo.get_config(config)
        assert (label_of(cfg)["model"], blocks_of(cfg)) == (model, blocks)
    cfg = model_zoo.get_config(KEYPOINT_NL.replace("_backbone", ""))
    cfg.MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY = 8
    assert blocks_of(cfg) == "+1 NL in head, KEYPOINT_HEAD_EVERY 8"
    cfg.MODEL.KEYPOINT_ON = False
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    assert label_of(cfg)["model"] == "Faster R-CNN R101 Res5ROIHeads"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "RetinaNet", "build_of_mine"
    assert label_of(cfg)["model"] == "RetinaNet build_of_mine"
