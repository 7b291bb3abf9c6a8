"""train_net.py --dry-run and --auto-scale: a line a check, the exit code, and nothing left behind."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of
from nl_detectron.data import register_coco, register_shapes
from nl_detectron.engine import main

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
DryRun = Callable[..., tuple[int, dict[str, str]]]


@pytest.fixture
def dry_run(shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> DryRun:
    """Run it on a config; the exit code, and the line of each check."""

    def run(*arguments: str, config: str = MASK) -> tuple[int, dict[str, str]]:
        capsys.readouterr()
        output = () if "OUTPUT_DIR" in arguments else ("OUTPUT_DIR", str(tmp_path / "output"))
        with pytest.raises(SystemExit) as stopped:
            main(["--config-file", config, "--dry-run", *arguments, "MODEL.DEVICE", "cpu", *output])
        *lines, last = capsys.readouterr().out.splitlines()
        assert last == "No check failed: this can run." or "failed; what depends on" in last
        checks = [line.split(": ", 1)[0] for line in lines]
        named: dict[str, str] = {}
        for check, line in zip(checks, lines, strict=True):
            named[check[6:]] = f"{named[check[6:]]}\n{line}" if check[6:] in named else line
        return stopped.value.code, named

    return run


def test_every_check_has_a_line(dry_run: DryRun, tmp_path: Path) -> None:
    code, lines = dry_run("SOLVER.BASE_LR", "0.005")
    assert code == 0
    assert lines["config"].endswith("mask_rcnn_R_18_FPN_nl_shapes.yaml, on cpu, in 1 process")
    assert lines["DATASETS.TRAIN shapes_train"].startswith("ok    DATASETS.TRAIN shapes_train: 12 images, ")
    decoded = "000000000000.jpg and 000000000005.jpg decoded; counts match"
    assert lines["DATASETS.TEST shapes_val"].endswith(decoded)
    assert "1 non-local block: backbone.bottom_up.res4.non_local_1" in lines["model"]
    assert lines["weights"] == "note  weights: none"
    assert "in inference, for 1 image of" in lines["memory"]
    assert lines["learning rate"].startswith("ok    learning rate: 0.005 for 4 images a step")
    assert lines["score threshold"] == "ok    score threshold: MODEL.ROI_HEADS.SCORE_THRESH_TEST is 0.05"
    assert lines["output"].startswith("ok")
    assert not (tmp_path / "output").exists()


def test_keypoints(dry_run: DryRun) -> None:
    code, lines = dry_run(config=KEYPOINT)
    assert code == 0
    assert "4 non-local blocks" in lines["model"]


def test_retinanet_has_a_rate_and_a_threshold_of_its_own(dry_run: DryRun) -> None:
    model = "MODEL.META_ARCHITECTURE RetinaNet MODEL.BACKBONE.NAME build_nl_retinanet_resnet_fpn_backbone"
    levels = "MODEL.RESNETS.OUT_FEATURES ['res3','res4','res5'] MODEL.FPN.IN_FEATURES ['res3','res4','res5']"
    values = "MODEL.RETINANET.NUM_CLASSES 4 MODEL.RETINANET.SCORE_THRESH_TEST 0.3 SOLVER.BASE_LR 0.0025"
    code, lines = dry_run(*f"{model} {levels} {values} MODEL.MASK_ON False".split())
    assert code == 0
    assert "linear scaling of Detectron2's 0.01 for 16 gives 0.0025" in lines["learning rate"]
    assert lines["score threshold"].startswith(
        "warn  score threshold: MODEL.RETINANET.SCORE_THRESH_TEST is 0.3"
    )


def test_what_depends_on_a_failure_is_left_out(dry_run: DryRun) -> None:
    code, lines = dry_run("MODEL.RESNETS.NUM_GROUPS", "2")
    assert code == 1
    assert [check for check, line in lines.items() if line.startswith("FAIL")] == ["model"]
    assert not {"weights", "memory", "learning rate"} & lines.keys()


def test_evaluation_checks_what_it_needs(dry_run: DryRun, tmp_path: Path) -> None:
    cfg = model_zoo.get_config(MASK)
    cfg.MODEL.DEVICE = "cpu"
    weights = tmp_path / "baseline.pth"
    tensors = build_model(baseline_of(cfg)).state_dict()
    torch.save(tensors, weights)
    code, lines = dry_run("--eval-only", "MODEL.WEIGHTS", str(weights))
    assert code == 0
    assert not {"learning rate", "DATASETS.TRAIN shapes_train"} & lines.keys()
    assert "new, as expected: backbone.bottom_up.res4.non_local_1 (11 tensors)" in lines["weights"]

    del tensors["backbone.fpn_lateral2.weight"]
    torch.save(tensors, weights)
    code, lines = dry_run("--eval-only", "MODEL.WEIGHTS", str(weights))
    assert (code, lines["weights"][:4]) == (1, "FAIL")
    code, lines = dry_run("--eval-only", "--allow-mismatch", "MODEL.WEIGHTS", str(weights))
    assert (code, lines["weights"][:4]) == (0, "warn")
    code, lines = dry_run("MODEL.WEIGHTS", str(weights))  # in training
    assert (code, lines["weights"][:4]) == (0, "warn")


@pytest.mark.parametrize(
    ("overrides", "check", "message"),
    [
        ("MODEL.NON_LOCAL.RES3 [1] MODEL.BACKBONE.NAME build_resnet_fpn_backbone", "config", "left alone"),
        ("DATASETS.TRAIN ('shapes_trian',)", "DATASETS.TRAIN shapes_trian", "Did you mean shapes_train"),
        ("MODEL.ROI_HEADS.NUM_CLASSES 80", "DATASETS.TEST shapes_val", "NUM_CLASSES must be 4"),
        ("MODEL.NON_LOCAL.RES4 [9]", "model", "RES4 must be a list of integers from -2 to 2"),
        ("MODEL.WEIGHTS no.pth", "weights", "MODEL.WEIGHTS must be a file or a URL"),
        ("OUTPUT_DIR /proc/nowhere", "output", "OUTPUT_DIR must be a folder to write to"),
        ("SOLVER.IMS_PER_BATCH 0", "config", "SOLVER.IMS_PER_BATCH must be a positive multiple of 1"),
        ("SOLVER.BASE_LR 0.0", "config", "SOLVER.BASE_LR must be above 0"),
        ("SOLVER.LR_SCHEDULER_NAME Foo", "learning rate", "cannot set up this schedule: ValueError"),
        ("DATALOADER.SAMPLER_TRAIN Foo", "first batch", "Detectron2 cannot load it: ValueError"),
        ("DATASETS.TEST ('voc_2007_test',)", "DATASETS.TEST voc_2007_test", "DATASETS.TEST must"),
        ("SOLVER.REFERENCE_WORLD_SIZE -1", "config", "REFERENCE_WORLD_SIZE must be a number of GPUs, or 0"),
        ("SOLVER.REFERENCE_WORLD_SIZE 3", "config", "SOLVER.IMS_PER_BATCH must be a positive multiple of 3"),
    ],
)
def test_what_fails(overrides: str, check: str, message: str, dry_run: DryRun) -> None:
    code, lines = dry_run(*overrides.split())
    assert code == 1
    assert lines[check].startswith(f"FAIL  {check}: ")
    assert message in lines[check]


@pytest.mark.parametrize(
    ("overrides", "check", "message"),
    [
        (
            "SOLVER.BASE_LR 0.1",
            "learning rate",
            "Detectron2's 0.02 for 16 gives 0.005: set SOLVER.BASE_LR to that",
        ),
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.5", "score threshold", "is 0.5, which lowers AP"),
        ("MODEL.RESNETS.NORM FrozenBN", "weights", "none, and random weights with MODEL.RESNETS.NORM"),
    ],
)
def test_what_is_warned_of(overrides: str, check: str, message: str, dry_run: DryRun) -> None:
    code, lines = dry_run(*overrides.split())
    assert code == 0
    assert lines[check].startswith(f"warn  {check}: ")
    assert message in lines[check]


def test_sigmas_of_other_keypoints(dry_run: DryRun) -> None:
    code, lines = dry_run("TEST.KEYPOINT_OKS_SIGMAS", "[0.1, 0.2]", config=KEYPOINT)
    assert code == 1
    message = "TEST.KEYPOINT_OKS_SIGMAS must have a number for each of the 17 keypoints"
    assert message in lines["DATASETS.TEST keypoints_shapes_val"]


@pytest.fixture
def register(shapes_root: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Register a data set made of another one: its name, for its kind, changed content and options."""
    names = []

    def register_changed(kind: str, change: Callable[[dict], None]) -> str:
        source = shapes_root / "shapes"
        dataset = json.loads((source / "annotations" / f"{kind}_val.json").read_text())
        change(dataset)
        (tmp_path / "changed.json").write_text(json.dumps(dataset))
        register_coco("changed", str(tmp_path / "changed.json"), str(source / "val"))
        names.append("changed")
        return "('changed',)"

    yield register_changed
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_classes_in_another_order(register: Callable[..., str], dry_run: DryRun) -> None:
    """AP would be that of other classes."""

    def swap(dataset: dict) -> None:
        first, second = dataset["categories"][:2]
        first["name"], second["name"] = second["name"], first["name"]

    code, lines = dry_run("DATASETS.TEST", register("instances", swap))
    assert code == 1
    assert "DATASETS must have the same thing_classes, in the same order" in lines["names"]
    assert [check for check, line in lines.items() if line.startswith("FAIL")] == ["names"]


def test_objects_without_keypoints_among_others(register: Callable[..., str], dry_run: DryRun) -> None:
    def drop(dataset: dict) -> None:
        dataset["annotations"][0]["keypoints"] = []

    code, lines = dry_run("DATASETS.TEST", register("person_keypoints", drop), config=KEYPOINT)
    assert code == 1
    assert "'changed' has 1 objects without: leave them out" in lines["DATASETS.TEST changed"]


def test_boxes_for_a_model_of_masks(register: Callable[..., str], dry_run: DryRun) -> None:
    def drop(dataset: dict) -> None:
        for annotation in dataset["annotations"]:
            del annotation["segmentation"]

    code, lines = dry_run("DATASETS.TRAIN", register("instances", drop))
    assert code == 1
    assert "MODEL.MASK_ON must be False for data without masks; got True" in lines["first batch"]


def test_nothing_but_crowds(register: Callable[..., str], dry_run: DryRun) -> None:
    def crowd(dataset: dict) -> None:
        for annotation in dataset["annotations"]:
            annotation["iscrowd"] = 1

    code, lines = dry_run("DATASETS.TRAIN", register("instances", crowd))
    assert code == 1
    assert lines["first batch"].startswith("FAIL  first batch: Detectron2 cannot load it")


@pytest.mark.parametrize("image", ["train/000000000000.jpg", "val/000000000005.jpg"])
def test_the_first_and_the_last_image_are_decoded(
    image: str, shapes_root: Path, dry_run: DryRun, tmp_path: Path
) -> None:
    shutil.copytree(shapes_root, tmp_path / "datasets")
    broken = tmp_path / "datasets" / "shapes" / image
    register_shapes(tmp_path / "datasets")
    try:
        broken.write_bytes(broken.read_bytes()[:200])
        code, lines = dry_run()
        assert code == 1
        (failed,) = [line for line in lines.values() if line.startswith("FAIL")]
        assert str(broken) in failed
        broken.unlink()
        code, lines = dry_run()
        assert code == 1
        (failed,) = [line for line in lines.values() if line.startswith("FAIL")]
        assert str(broken) in failed
    finally:
        register_shapes(shapes_root)


def test_auto_scale_is_detectron2s(dry_run: DryRun) -> None:
    """A config for 8 GPUs on one process: an eighth of the batch and of the rate, 8 times the steps."""
    overrides = "SOLVER.IMS_PER_BATCH 16 SOLVER.BASE_LR 0.02 SOLVER.MAX_ITER 100".split()
    _, lines = dry_run("--auto-scale", *overrides)
    assert lines["learning rate"].startswith("ok    learning rate: 0.0025 for 2 images a step, 800 steps")
    assert "in training, for 2 images" in lines["memory"]
    code, _ = dry_run("--auto-scale", "--eval-only", "SOLVER.IMS_PER_BATCH", "4")
    assert code == 0
    code, lines = dry_run("--auto-scale", "SOLVER.IMS_PER_BATCH", "4")
    assert code == 1
    assert (
        "SOLVER.IMS_PER_BATCH must be a positive multiple of 8 (SOLVER.REFERENCE_WORLD_SIZE)"
        in lines["config"]
    )


def test_auto_scale_reaches_the_trainer(shapes_root: Path, tmp_path: Path) -> None:
    sizes = (
        "INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 MODEL.DEVICE cpu DATASETS.TEST () SEED 1".split()
    )
    solver = "SOLVER.IMS_PER_BATCH 8 SOLVER.MAX_ITER 1 SOLVER.STEPS ()".split()
    output = ["OUTPUT_DIR", str(tmp_path)]
    main(["--config-file", MASK, "--auto-scale", *sizes, *solver, *output])
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 7
