"""Which trainings tools/results.py compares with which, what it refuses, and the names of models."""

from pathlib import Path

import detectron2.model_zoo
import pytest
from made_up_runs import MASK, command, finished, run, write_metrics, write_record
from result_tables.pairing import Group, blocks_of, group_runs, label_of, read_finished
from result_tables.tables import result_table

from nl_detectron import model_zoo
from nl_detectron.engine import Run
from nl_detectron.errors import UserError

DOT_PRODUCT = ("MODEL.NON_LOCAL.PAIRWISE", "dot_product")
R50 = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
KEYPOINT_NL = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml"


def refusal(*runs: Run) -> str:
    with pytest.raises(UserError) as refused:
        group_runs(runs)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(f"{runs[0].folder.parent}/", "")


def names(groups: list[Group]) -> list[list[str]]:
    return [[run.folder.name for runs in group.values() for run in runs] for group in groups]


def test_pairs_have_the_same_seed(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, int(name[-1])) for name in ("nl_2", "base_1", "base_2", "nl_1")]
    runs.insert(1, run(tmp_path / "nl_dot_2", 2, 30.0, *DOT_PRODUCT))
    assert names(group_runs(runs)) == [["base_1", "base_2", "nl_1", "nl_2", "nl_dot_2"]]


def test_each_schedule_has_its_own_baseline(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / f"{name}_{gamma}", 1, 30.0, "SOLVER.GAMMA", gamma)
        for name in ("base", "nl")
        for gamma in ("0.1", "0.5")
    ]
    assert names(group_runs(runs)) == [["base_0.1", "nl_0.1"], ["base_0.5", "nl_0.5"]]
    models = [row["model"] for row in result_table(group_runs(runs))]
    assert models[:3] == ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.1"] * 3
    assert models[3:] == ["Mask R-CNN R18-FPN, SOLVER.GAMMA 0.5"] * 3


def test_what_the_nearest_has_instead_is_named(tmp_path: Path) -> None:
    nl = run(tmp_path / "nl", 1, 30.0, "SOLVER.BASE_LR", "0.01", "DATASETS.TRAIN", "('shapes_val',)")
    far = run(tmp_path / "far", 2, 30.0, "SOLVER.GAMMA", "0.5")
    assert refusal(nl, far, run(tmp_path / "base")) == (
        "nl has no baseline of the same setting and SEED beside it. The nearest, base, has DATASETS.TRAIN "
        '["shapes_train"] instead of ["shapes_val"], SOLVER.BASE_LR 0.02 instead of 0.01, images '
        '{"shapes_train": 12, "shapes_val": 6} instead of {"shapes_val": 6}.'
    )


def test_what_no_key_tells_is_compared_too(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", processes=8), run(tmp_path / "nl_segm", task="segm")
    message = refusal(nl, base)
    assert "The nearest, base, has processes 8 instead of 1, evaluation " in message
    assert message.endswith('"segm/AP", "segm/AP50", "segm/AP75"].')


def test_without_a_partner(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", 1), run(tmp_path / "nl", 2)
    rule = "of the same setting and SEED beside it."
    assert refusal(nl) == f"nl has no baseline {rule} Train one, or leave this out."
    assert refusal(base) == f"base has no run with non-local blocks {rule} Train one, or leave this out."
    message = f"base has no run with non-local blocks {rule} The nearest, nl, has SEED 2 instead of 1."
    assert refusal(base, nl) == refusal(base, nl, run(tmp_path / "base_2", 2)) == message


def test_the_same_training_twice(tmp_path: Path) -> None:
    runs = [run(tmp_path / name) for name in ("nl_one", "nl_other")]
    assert refusal(*runs) == "nl_one and nl_other are both +1 NL in res4 with SEED 1. Leave one out."


@pytest.mark.parametrize(("last", "is_finished"), [(0, False), (59, False), (100, False), (99, True)])
def test_an_unfinished_training(tmp_path: Path, last: int, is_finished: bool) -> None:
    """At its start, later, in the last evaluation; and one whose last metrics are gone."""
    write_record(tmp_path, finished=is_finished)
    write_metrics(tmp_path, last, bbox=(1.0, 2.0, 3.0))
    with pytest.raises(UserError) as refused:
        read_finished(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is not finished: its last metrics are of iteration {last}, and iteration 100 is "
        "not evaluated. Continue it with train_net.py --resume."
    )


def test_trainings_that_are_not_one(tmp_path: Path) -> None:
    sets = ("DATASETS.TEST", "('shapes_val', 'shapes_train')")
    finished(tmp_path / "two", MASK, *sets, scores={"shapes_val/bbox": (1.0, 2.0, 3.0)})
    with pytest.raises(UserError, match="two was tested on 2 data sets. Only runs with one are compared."):
        read_finished(tmp_path / "two")
    finished(tmp_path / "changed", MASK, scores={"bbox": (1.0, 2.0, 3.0)})
    write_record(
        tmp_path / "changed", commands=[command(), command(start=40, changed=["SEED was 2 and is 1"])]
    )
    with pytest.raises(UserError, match="changed was resumed as another training: SEED was 2 and is 1."):
        read_finished(tmp_path / "changed")


def test_names_of_blocks() -> None:
    expected = {
        R50: "baseline",
        KEYPOINT_NL: "+4 NL in head, +1 NL in res4",
        "Ablations/mask_rcnn_R_50_FPN_nl_5_blocks_1x.yaml": "+2 NL in res3 [2, 4], +3 NL in res4 [2, 4, 6]",
        "Ablations/mask_rcnn_R_50_FPN_nl_no_scale_1x.yaml": "+1 NL in res4, SCALE False",
        "Ablations/mask_rcnn_R_50_FPN_nl_res2_1x.yaml": "+1 NL in res2",
    }
    for config, blocks in expected.items():
        assert blocks_of(model_zoo.get_config(config)) == blocks
    cfg = model_zoo.get_config(KEYPOINT_NL.replace("_backbone", ""))
    cfg.MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY = 8
    assert blocks_of(cfg) == "+1 NL in head, KEYPOINT_HEAD_EVERY 8"


def test_names_of_models() -> None:
    assert label_of(model_zoo.get_config(KEYPOINT_NL))["model"] == "Keypoint R-CNN R101-FPN"
    cfg = model_zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_3x.yaml")
    assert label_of(cfg)["model"] == "Mask R-CNN X152-FPN"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "RetinaNet", "build_of_mine"
    assert label_of(cfg)["model"] == "RetinaNet build_of_mine"
    for config, model in (
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "Mask R-CNN R50-FPN CascadeROIHeads"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", "Mask R-CNN R50 Res5ROIHeads"),
        ("COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml", "Faster R-CNN R50-FPN"),
        ("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor R50-FPN"),
    ):
        assert label_of(detectron2.model_zoo.get_config(config))["model"] == model
