"""What is checked before a run, and that --dry-run prints exactly that and leaves nothing behind."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from runs import KEYPOINT, MASK, SMALL, STEPS, registrations_forgotten, run_here

from nl_detectron.config import baseline_of
from nl_detectron.data import register_coco
from nl_detectron.engine import main
from nl_detectron.engine.checks import Checks
from nl_detectron_cli.arguments import train_net_parser

DryRun = Callable[..., tuple[int, dict[str, str]]]


def test_every_check_has_a_line(dry_run: DryRun, tmp_path: Path) -> None:
    code, lines = dry_run()
    assert code == 0
    assert [*lines] == [
        "config",
        "DATASETS.TRAIN shapes_train",
        "DATASETS.TEST shapes_val",
        "model",
        "weights",
        "output",
    ]
    assert lines["config"].endswith("mask_rcnn_R_18_FPN_nl_shapes.yaml, on cpu; processes: 1")
    assert lines["DATASETS.TRAIN shapes_train"].startswith("ok    DATASETS.TRAIN shapes_train: 12 images, ")
    assert lines["DATASETS.TEST shapes_val"].endswith("the first and the last image can be read")
    assert "1 non-local block: backbone.bottom_up.res4.non_local_1" in lines["model"]
    assert lines["weights"] == "ok    weights: none: random initialisation"
    assert lines["output"].endswith("can be written")
    assert not (tmp_path / "output").exists()


def test_a_run_does_what_a_dry_run_prints(
    shapes_root: Path, mask_cfg: CfgNode, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same checks in the same order; one that fails ends a run."""
    args = train_net_parser().parse_args(["--config-file", MASK])
    done = []

    class Recorded(Checks):
        def _checks(self):
            for name, check in super()._checks():
                done.append(name)
                yield name, check

    for call in (Recorded.run, Recorded.print_all):
        call(Recorded(mask_cfg, args, set()))
    assert done[: len(done) // 2] == done[len(done) // 2 :]
    printed = [line[6:].split(": ")[0] for line in capsys.readouterr().out.splitlines() if line[:3] == "ok "]
    assert printed == done[: len(done) // 2]


@pytest.mark.parametrize(
    ("options", "check", "message"),
    [
        ("MODEL.NON_LOCAL.RES3 [1] MODEL.BACKBONE.NAME build_resnet_fpn_backbone", "config", "ignores it"),
        ("DATASETS.TRAIN ('shapes_trian',)", "DATASETS.TRAIN shapes_trian", "Did you mean shapes_train"),
        ("MODEL.ROI_HEADS.NUM_CLASSES 80", "DATASETS.TRAIN shapes_train", "4 thing_classes: "),
        ("DATASETS.TEST ('lvis_v1_val',)", "DATASETS.TEST lvis_v1_val", "Set DETECTRON2_DATASETS"),
        ("MODEL.NON_LOCAL.RES4 [9]", "model", "MODEL.NON_LOCAL.RES4 must be a list of integers from -2 to 2"),
        ("MODEL.WEIGHTS no.pth", "weights", "MODEL.WEIGHTS 'no.pth' does not exist"),
        ("OUTPUT_DIR /proc/nowhere", "output", "OUTPUT_DIR '/proc/nowhere' cannot be written to: /proc: "),
        ("SOLVER.AMP.PRECISION float16", "config", "SOLVER.AMP.PRECISION float16 would lose"),
        ("--eval-only DATASETS.TEST ()", "config", "DATASETS.TEST is empty. Name a data set."),
        ("--eval-only", "weights", "--eval-only needs a checkpoint. Set MODEL.WEIGHTS, or give --resume."),
        ("--draw-training -1", "config", "--draw-training must be 0 or more; got -1."),
        ("--num-machines 0 SOLVER.IMS_PER_BATCH -1", "config", "which 1 processes cannot share"),
        ("--overwrite --resume", "config", "--overwrite starts a new training. Leave out --resume"),
        ("SOLVER.CHECKPOINTS_KEPT -1", "config", "SOLVER.CHECKPOINTS_KEPT must be 0 or more; got -1."),
        ("TEST.LOSS_IMAGES -1", "config", "TEST.LOSS_IMAGES must be 0 or more; got -1."),
        ("--auto-scale SOLVER.IMS_PER_BATCH 4", "config", "to be a multiple of the 8 processes"),
    ],
)
def test_a_failed_check_is_the_error_of_a_run(
    options: str, check: str, message: str, dry_run: DryRun, tmp_path: Path
) -> None:
    words = options.split()
    code, lines = dry_run(*words)
    assert code == 1
    assert next(name for name, line in lines.items() if line.startswith("FAIL")) == check
    text = lines[check].removeprefix(f"FAIL  {check}: ")
    assert message in text
    output = () if "OUTPUT_DIR" in words else ("OUTPUT_DIR", str(tmp_path / "output"))
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", MASK, *words, "MODEL.DEVICE", "cpu", *output])
    assert stopped.value.code == f"error: {text}"
    assert not (tmp_path / "output").exists()


def test_evaluation_checks_what_it_needs(dry_run: DryRun, mask_cfg: CfgNode, tmp_path: Path) -> None:
    weights = tmp_path / "baseline.pth"
    tensors = build_model(baseline_of(mask_cfg)).state_dict()
    torch.save(tensors, weights)
    code, lines = dry_run("--eval-only", "MODEL.WEIGHTS", str(weights))
    assert code == 0
    assert "DATASETS.TRAIN shapes_train" not in lines
    assert "new, as expected: backbone.bottom_up.res4.non_local_1 (11 tensors)" in lines["weights"]

    del tensors["backbone.fpn_lateral2.weight"]
    torch.save(tensors, weights)
    code, lines = dry_run("--eval-only", "MODEL.WEIGHTS", str(weights))
    assert (code, lines["weights"][:4]) == (1, "FAIL")
    code, lines = dry_run("--eval-only", "--allow-mismatch", "MODEL.WEIGHTS", str(weights))
    assert (code, lines["weights"][:4]) == (0, "warn")
    code, lines = dry_run("MODEL.WEIGHTS", str(weights))  # in training
    assert (code, lines["weights"][:4]) == (0, "warn")


def test_a_resume_checks_its_checkpoint(dry_run: DryRun, copied: Path) -> None:
    same = [*SMALL, *STEPS, "MODEL.WEIGHTS", "no.pth", "OUTPUT_DIR", str(copied)]
    code, lines = dry_run("--resume", *same)
    assert code == 0
    assert f"{copied / 'model_final.pth'}" in lines["weights"]
    assert lines["output"].endswith("holds a checkpoint")


def test_an_evaluation_of_a_training_elsewhere(dry_run: DryRun, copied: Path) -> None:
    """On other processes and with another batch: it resumes nothing."""
    others = [*SMALL, *STEPS, "SOLVER.IMS_PER_BATCH", "4", "OUTPUT_DIR", str(copied)]
    with mock.patch.dict(os.environ, {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}):
        _, lines = dry_run("--eval-only", "--resume", *others)
    assert lines["weights"].startswith("ok ")


@pytest.mark.parametrize("way", ["link", "folder/../"])
def test_weights_that_an_overwritten_training_would_take_with_it(
    way: str, dry_run: DryRun, copied: Path, tmp_path: Path
) -> None:
    link = tmp_path / "best.pth"
    link.symlink_to(copied / "model_final.pth")
    weights = link if way == "link" else f"{copied}/../{copied.name}/model_final.pth"
    same = [*SMALL, *STEPS, "OUTPUT_DIR", str(copied)]
    code, lines = dry_run("--overwrite", *same, "MODEL.WEIGHTS", str(weights))
    assert code == 1
    assert f"--overwrite would delete MODEL.WEIGHTS {weights}" in lines["output"]


def test_images_that_are_not_resized(dry_run: DryRun) -> None:
    code, lines = dry_run("INPUT.MIN_SIZE_TEST", "0")
    assert code == 0
    assert "1 non-local block" in lines["model"]
    assert "GMAC" not in lines["model"]


def test_keypoints_and_their_sigmas(dry_run: DryRun) -> None:
    code, lines = dry_run(config=KEYPOINT)
    assert code == 0
    assert "4 non-local blocks" in lines["model"]
    code, lines = dry_run("TEST.KEYPOINT_OKS_SIGMAS", "[0.1, 0.2]", config=KEYPOINT)
    assert code == 1
    message = "TEST.KEYPOINT_OKS_SIGMAS needs a number for each of the 17 keypoints"
    assert message in lines["DATASETS.TEST keypoints_shapes_val"]


def test_keypoints_of_which_none_is_labelled(changed: Callable[..., None], dry_run: DryRun) -> None:
    """Detectron2 leaves such images out of a training, and then has none."""

    def unlabel(dataset: dict) -> None:
        for object_ in dataset["annotations"]:
            object_["keypoints"][2::3] = [0] * 17

    changed("person_keypoints", unlabel)
    code, lines = dry_run("DATASETS.TRAIN", "('changed',)", config=KEYPOINT)
    assert code == 1
    assert "has no image with 1 labelled keypoints" in lines["DATASETS.TRAIN changed"]
    sets = "DATASETS.TRAIN ('changed',) DATASETS.TEST ('changed',)".split()
    assert dry_run("--eval-only", *sets, config=KEYPOINT)[1]["DATASETS.TEST changed"].startswith("ok")


@pytest.fixture
def changed(shapes_root: Path, tmp_path: Path) -> Callable[..., None]:
    """Register a changed copy of a data set as "changed"."""

    def register_changed(kind: str, change: Callable[[dict], object]) -> None:
        source = shapes_root / "shapes"
        dataset = json.loads((source / "annotations" / f"{kind}_val.json").read_text())
        change(dataset)
        (tmp_path / "changed.json").write_text(json.dumps(dataset))
        register_coco("changed", str(tmp_path / "changed.json"), str(source / "val"))

    with registrations_forgotten():
        yield register_changed


def test_classes_in_another_order(changed: Callable[..., None], dry_run: DryRun) -> None:
    """AP would be that of other classes."""

    def swap(dataset: dict) -> None:
        first, second = dataset["categories"][:2]
        first["name"], second["name"] = second["name"], first["name"]

    changed("instances", swap)
    code, lines = dry_run("DATASETS.TEST", "('changed',)")
    assert code == 1
    assert "All data sets need the same thing_classes in the same order" in lines["DATASETS.TEST changed"]


def test_a_test_set_that_lacks_a_class(changed: Callable[..., None], dry_run: DryRun) -> None:
    """As converters write it that number the classes they meet. NUM_CLASSES cannot be right for both sets."""

    def without_the_last(dataset: dict) -> None:
        last = dataset["categories"].pop()["id"]
        dataset["annotations"] = [each for each in dataset["annotations"] if each["category_id"] != last]

    changed("instances", without_the_last)
    code, lines = dry_run("DATASETS.TEST", "('changed',)")
    assert code == 1
    said = lines["DATASETS.TEST changed"]
    assert "same thing_classes in the same order; 'shapes_train' has ['person', 'circle', " in said
    assert said.endswith("Give their files the same categories, those without objects too.")


def test_a_resume_into_another_training_is_refused(dry_run: DryRun, copied: Path) -> None:
    """Naming what differs; the learning rate and the schedule may be changed on purpose."""
    same = [*SMALL, *STEPS, "OUTPUT_DIR", str(copied)]
    for others, said in [
        (["MODEL.RESNETS.DEPTH", "34"], "MODEL.RESNETS.DEPTH was 18 and is 34"),
        (["MODEL.NON_LOCAL.PAIRWISE", "dot_product"], "PAIRWISE was embedded_gaussian and is dot_product"),
        (["SOLVER.IMS_PER_BATCH", "4"], "SOLVER.IMS_PER_BATCH was 2 and is 4. Restore it, or start a new"),
        (["SOLVER.BASE_LR", "0.5"], "SOLVER.BASE_LR was 0.02 and is 0.5. Restore it, or give --new-schedule"),
    ]:
        code, lines = dry_run("--resume", *same, *others)
        assert code == 1
        assert "--resume would not go on with the same training: " in lines["weights"]
        assert said in lines["weights"]
    with mock.patch.dict(os.environ, {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}):
        code, lines = dry_run("--resume", *same)
    assert "processes x SOLVER.ACCUMULATE was 1 and is 2" in lines["weights"]
    code, lines = dry_run(
        "--resume", "--new-schedule", *same, "SOLVER.BASE_LR", "0.5", "SOLVER.STEPS", "(2,)"
    )
    assert code == 0
    allowed = ["SOLVER.MAX_ITER", "9", "TEST.EVAL_PERIOD", "2", "SOLVER.AMP.PRECISION", "bfloat16"]
    code, lines = dry_run("--resume", *same, *allowed)
    assert code == 0


def test_boxes_for_a_model_of_masks(changed: Callable[..., None], dry_run: DryRun) -> None:
    changed("instances", lambda dataset: [a.pop("segmentation") for a in dataset["annotations"]])
    code, lines = dry_run("DATASETS.TRAIN", "('changed',)")
    assert code == 1
    assert "'changed' has no masks. Set MODEL.MASK_ON to False." in lines["DATASETS.TRAIN changed"]
    code, lines = dry_run("DATASETS.TRAIN", "('changed',)", "MODEL.MASK_ON", "False")
    assert code == 0


def test_what_was_mended_is_told(changed: Callable[..., None], dry_run: DryRun) -> None:
    changed("instances", lambda dataset: dataset["annotations"][0].pop("area"))
    code, lines = dry_run("DATASETS.TEST", "('changed',)")
    assert code == 0
    assert "mended in a copy: 1 x area missing" in lines["DATASETS.TEST changed"]


@pytest.mark.parametrize("fault", ["cannot be read: ", "has 16 bits or more a value"])
def test_every_image_is_decoded_on_demand(
    fault: str, shapes_root: Path, dry_run: DryRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nl_detectron.data.coco_images.HEADERS", 1)  # as in a large data set
    shutil.copytree(shapes_root / "shapes" / "val", tmp_path / "val")
    broken = tmp_path / "val" / f"{2:012d}.jpg"
    wide = cv2.imencode(".png", cv2.imread(str(broken), 0).astype(np.uint16) * 256)[1].tobytes()
    broken.write_bytes(wide if "bits" in fault else broken.read_bytes()[:300])
    data = ("broken", str(shapes_root / "shapes" / "annotations" / "instances_val.json"), str(broken.parent))
    words = ("--register-coco", *data, "DATASETS.TEST", "('broken',)")
    with registrations_forgotten():
        assert dry_run(*words)[0] == 0
        code, lines = dry_run("--decode-all", *words)
        assert code == 1
        assert f"{broken} {fault}" in lines["DATASETS.TEST broken"]
        code, lines = dry_run("--decode-all", "--skip-broken", "1", *words)
        assert code == 0
        assert lines["DATASETS.TEST broken"].endswith("all can be read")


def test_other_metrics_than_cocos(changed: Callable[..., None], dry_run: DryRun) -> None:
    changed("instances", lambda dataset: None)
    MetadataCatalog.get("changed").__dict__["evaluator_type"] = "lvis"
    code, lines = dry_run("DATASETS.TEST", "('changed',)")
    assert code == 1
    assert "'changed' has the metrics of 'lvis', not COCO's" in lines["DATASETS.TEST changed"]


@pytest.mark.parametrize("index", [0, 5])
def test_the_first_and_the_last_image_are_read(
    index: int, shapes_root: Path, dry_run: DryRun, tmp_path: Path
) -> None:
    shutil.copytree(shapes_root / "shapes" / "val", tmp_path / "val")
    broken = tmp_path / "val" / f"{index:012d}.jpg"
    data = ("broken", str(shapes_root / "shapes" / "annotations" / "instances_val.json"), str(broken.parent))
    words = ("--register-coco", *data, "DATASETS.TEST", "('broken',)")
    with registrations_forgotten():
        for content in (broken.read_bytes()[:-200], b"<html>", None):
            broken.write_bytes(content) if content else broken.unlink()
            code, lines = dry_run(*words)
            assert code == 1
            (failed,) = [line for line in lines.values() if line.startswith("FAIL")]
            assert f"{broken} cannot be read: " in failed
            assert "give --skip-broken 1" in failed
            assert dry_run("--skip-broken", "1", *words)[0] == 0


@pytest.mark.slow
def test_auto_scale_reaches_the_trainer(shapes_root: Path, tmp_path: Path) -> None:
    """A config for 8 GPUs on one process: an eighth of the batch, 8 times the steps."""
    options = "INPUT.MIN_SIZE_TRAIN (64,) MODEL.DEVICE cpu DATASETS.TEST () SEED 1 SOLVER.STEPS ()".split()
    solver = "SOLVER.IMS_PER_BATCH 8 SOLVER.MAX_ITER 1".split()
    run_here("--config-file", MASK, "--auto-scale", *options, *solver, "OUTPUT_DIR", str(tmp_path))
    checkpoint = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 7
