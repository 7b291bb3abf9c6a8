"""Which runs are paired, and what is said of those that cannot be."""

from pathlib import Path

import detectron2.model_zoo
import pytest
from made_up_runs import MASK, MASK_NL, finished

from nl_detectron import model_zoo
from nl_detectron.errors import UserError
from nl_detectron.results import Run, pair_runs
from nl_detectron.results.names import blocks_of, model_of

SCORES = {"bbox": (30.0, 50.0, 20.0)}


def run(folder: Path, config: str, seed: int, *options: str, **log: object) -> Run:
    return finished(folder, config, "SEED", str(seed), *options, scores=SCORES, **log)


def refusal(*runs: Run) -> str:
    with pytest.raises(UserError) as refused:
        pair_runs(runs)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(f"{runs[0].folder.parent}/", "")


def test_pairs_have_the_same_seed(tmp_path: Path) -> None:
    given = [
        run(tmp_path / "nl_2", MASK_NL, 2),
        run(tmp_path / "base_1", MASK, 1),
        run(tmp_path / "base_2", MASK, 2),
        run(tmp_path / "dot_2", MASK_NL, 2, "MODEL.NON_LOCAL.PAIRWISE", "dot_product"),
        run(tmp_path / "nl_1", MASK_NL, 1),
    ]
    names = [[(a.folder.name, b.folder.name) for a, b in each.pairs] for each in pair_runs(given)]
    assert names == [[("base_1", "nl_1"), ("base_2", "nl_2")], [("base_2", "dot_2")]]


def test_several_test_sets_are_refused(tmp_path: Path) -> None:
    options = ("DATASETS.TEST", "('shapes_val', 'shapes_train')")
    scores = {f"{name}/bbox": SCORES["bbox"] for name in ("shapes_val", "shapes_train")}
    both = finished(tmp_path / "both", MASK, *options, scores=scores)
    assert refusal(both) == "both: DATASETS.TEST must be one data set; got ['shapes_val', 'shapes_train']."


def test_each_schedule_has_its_own_baseline(tmp_path: Path) -> None:
    long = ("SOLVER.GAMMA", "0.5")
    given = [
        run(tmp_path / "base", MASK, 1),
        run(tmp_path / "long_base", MASK, 1, *long),
        run(tmp_path / "nl", MASK_NL, 1),
        run(tmp_path / "long_nl", MASK_NL, 1, *long),
    ]
    pairs = [pair for comparison in pair_runs(given) for pair in comparison.pairs]
    assert [(a.folder.name, b.folder.name) for a, b in pairs] == [("base", "nl"), ("long_base", "long_nl")]


def test_a_config_that_differs_in_more(tmp_path: Path) -> None:
    options = ("SOLVER.BASE_LR", "0.01", "DATASETS.TRAIN", "('shapes_val',)")
    base, nl = run(tmp_path / "base", MASK, 1), run(tmp_path / "nl", MASK_NL, 1, *options)
    assert refusal(nl, base) == (
        "nl must have a baseline of the same setting and SEED beside it; the nearest, base, has another "
        'DATASETS.TRAIN, ["shapes_train"] instead of ["shapes_val"]; another SOLVER.BASE_LR, 0.02 instead of '
        "0.01."
    )


def test_data_and_processes_that_no_key_tells(tmp_path: Path) -> None:
    base = run(tmp_path / "base", MASK, 1, images=(12, 5000), processes=8)
    assert refusal(run(tmp_path / "nl", MASK_NL, 1, images=(12, 50)), base).endswith(
        "has another number of processes, 8 instead of 1; another number of images, [12, 5000] instead of "
        "[12, 50]."
    )


def test_another_evaluation(tmp_path: Path) -> None:
    nl = finished(tmp_path / "nl", MASK_NL, scores=SCORES | {"segm": (1.0, 2.0, 3.0)})
    assert 'has another evaluation, ["bbox/AP", "bbox/AP50", "bbox/AP75"] instead of ["bbox/AP", ' in refusal(
        nl, run(tmp_path / "base", MASK, 1)
    )


def test_another_seed(tmp_path: Path) -> None:
    base, nl = run(tmp_path / "base", MASK, 1), run(tmp_path / "nl", MASK_NL, 2)
    assert refusal(base, nl) == (
        "base must have a run with non-local blocks of the same setting and SEED beside it; the nearest, nl, "
        "has another SEED, 2 instead of 1."
    )
    pair = run(tmp_path / "base_2", MASK, 2)
    assert refusal(base, nl, pair).endswith("the nearest, nl, has another SEED, 2 instead of 1.")


def test_one_kind_alone(tmp_path: Path) -> None:
    assert refusal(run(tmp_path / "nl", MASK_NL, 1)) == (
        "nl must have a baseline of the same setting and SEED beside it; there is none. "
        "Train one, or leave this out."
    )
    assert refusal(run(tmp_path / "base", MASK, 1)).startswith("base must have a run with non-local blocks")


def test_the_same_training_twice(tmp_path: Path) -> None:
    runs = [run(tmp_path / name, MASK_NL, 1) for name in ("one", "other")]
    assert refusal(*runs) == (
        "each training must be given once; one and other are both +1 NL in res4 with SEED 1. Leave one out."
    )


@pytest.mark.parametrize(
    ("config", "model", "blocks"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "Mask R-CNN R50-FPN", "baseline"),
        (
            "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_3x.yaml",
            "Mask R-CNN X152-FPN",
            "+1 NL in res4",
        ),
        ("COCO-Keypoints/keypoint_rcnn_R_50_FPN_nl_head_1x.yaml", "Keypoint R-CNN R50-FPN", "+4 NL in head"),
        (
            "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml",
            "Keypoint R-CNN R101-FPN",
            "+4 NL in head, +1 NL in res4",
        ),
        (
            "Ablations/mask_rcnn_R_50_FPN_nl_5_blocks_1x.yaml",
            "Mask R-CNN R50-FPN",
            "+2 NL in res3 [2, 4], +3 NL in res4 [2, 4, 6]",
        ),
        (
            "Ablations/mask_rcnn_R_50_FPN_nl_no_scale_1x.yaml",
            "Mask R-CNN R50-FPN",
            "+1 NL in res4, SCALE False",
        ),
    ],
)
def test_names(config: str, model: str, blocks: str) -> None:
    cfg = model_zoo.get_config(config)
    assert (model_of(cfg), blocks_of(cfg)) == (model, blocks)


@pytest.mark.parametrize(
    ("config", "model"),
    [
        ("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "Cascade Mask R-CNN R50-FPN"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml", "Mask R-CNN R50-C4"),
        ("COCO-InstanceSegmentation/mask_rcnn_R_50_DC5_1x.yaml", "Mask R-CNN R50-DC5"),
        ("COCO-Detection/faster_rcnn_R_101_DC5_3x.yaml", "Faster R-CNN R101-DC5"),
        ("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor R50-FPN"),
    ],
)
def test_names_of_detectron2s_models(config: str, model: str) -> None:
    cfg = detectron2.model_zoo.get_config(config)
    assert model_of(cfg) == model
    if config.startswith("Misc/cascade"):
        cfg.MODEL.MASK_ON = False
        assert model_of(cfg) == "Cascade R-CNN R50-FPN"


@pytest.mark.parametrize(
    ("config", "indices", "blocks"),
    [
        ("R_50", [5], "+1 NL in res4"),
        ("R_50", [-2], "+1 NL in res4 [4]"),
        ("R_50", [6, -6], "+2 NL in res4 [0, 6]"),
        ("R_101", [22], "+1 NL in res4"),
        ("X_152_32x8d", [5], "+1 NL in res4 [5]"),
    ],
)
def test_the_same_place_has_one_name(config: str, indices: list[int], blocks: str) -> None:
    cfg = model_zoo.get_config(f"COCO-InstanceSegmentation/mask_rcnn_{config}_FPN_nl_1x.yaml")
    cfg.MODEL.NON_LOCAL.RES4 = indices
    assert blocks_of(cfg) == blocks


def test_names_of_other_models() -> None:
    cfg = model_zoo.get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_nl_head_1x.yaml")
    cfg.MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY = 8
    assert blocks_of(cfg) == "+1 NL in head (every 8)"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "RetinaNet", "build_of_mine"
    assert model_of(cfg) == "RetinaNet build_of_mine"
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME = "GeneralizedRCNN", "build_resnet_backbone"
    cfg.MODEL.KEYPOINT_ON = False
    assert model_of(cfg) == "Faster R-CNN R50"
