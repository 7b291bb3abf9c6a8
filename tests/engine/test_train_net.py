"""train_net.py as a user runs it; what needs no process of its own is run in this one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from detectron2.data.datasets import register_coco_instances
from runs import (
    KEYPOINT,
    MASK,
    ROOT,
    STEPS,
    arguments,
    environment,
    load,
    refusal,
    registrations_forgotten,
    run_here,
)

from nl_detectron.config import get_cfg
from nl_detectron.engine import main, read_run
from nl_detectron.engine.console import describe_schedule
from nl_detectron.errors import UserError

PROGRAM = [sys.executable, str(ROOT / "train_net.py")]


def train_net(root: Path, output: Path, config: str, *options: str) -> str:
    """Run train_net.py from another directory; all that it prints."""
    result = subprocess.run(
        [*PROGRAM, *arguments(config, output, *options)],
        cwd=output.parent,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    assert "Warning: " not in result.stdout  # Python's; those of Detectron2's code are silenced
    return result.stdout


def average_precisions(folder: Path) -> list[str]:
    """Detectron2's copypaste lines in the log: tasks and metrics."""
    lines = (folder / "log.txt").read_text().splitlines()
    return [line.split("copypaste: ")[1] for line in lines if "copypaste: " in line]


def test_evaluation_of_what_was_trained(trained: Path, shapes_root: Path, tmp_path: Path) -> None:
    weights = ("--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    with registrations_forgotten():
        register_coco_instances(
            "elsewhere", {}, "nowhere.json", "nowhere"
        )  # what was trained on is not needed
        run_here(*arguments(MASK, tmp_path / "again", *weights, "DATASETS.TRAIN", "('elsewhere',)"))
    again = tmp_path / "again"
    assert len(average_precisions(again)) == 6  # of boxes and masks
    assert average_precisions(again) == average_precisions(trained)[:6]  # later runs log there too
    results = "inference/coco_instances_results.json"
    assert (again / results).read_text() == (trained / results).read_text()
    assert "Starting training" not in (again / "log.txt").read_text()
    assert not (again / "run.json").exists()  # which is a training's
    metrics = json.loads((again / "inference" / "metrics.json").read_text())
    assert metrics["weights"] == weights[-1]
    assert metrics["segm/AP"] == read_run(trained).history[3]["segm/AP"]


def test_a_training_is_not_overwritten_by_forgetting_a_flag(copied: Path) -> None:
    for name in ("metrics.json", "model_zoo.pth"):
        (copied / name).write_text("{}\n")
    words = arguments(MASK, copied, "SEED", "1", "SOLVER.MAX_ITER", "1")
    assert "holds a training. Give --resume to continue it, --overwrite to delete it" in refusal(main, words)
    words = arguments(MASK, copied, "--overwrite", "SEED", "1", "SOLVER.MAX_ITER", "1")
    weights = str(copied / "model_final.pth")
    assert f"would delete MODEL.WEIGHTS {weights}" in refusal(main, [*words, "MODEL.WEIGHTS", weights])
    assert load(copied / "model_final.pth")["iteration"] == 2
    run_here(*words)
    assert {path.name for path in copied.glob("*.pth")} == {"model_final.pth", "model_zoo.pth"}
    assert load(copied / "model_final.pth")["iteration"] == 0
    assert "{}" not in (copied / "metrics.json").read_text()


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    """From another directory, without DETECTRON2_DATASETS."""
    variables = {key: value for key, value in os.environ.items() if key != "DETECTRON2_DATASETS"}
    command = [*PROGRAM, "--config-file", MASK, "MODEL.DEVICE", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: DATASETS.TRAIN 'shapes_train' needs datasets/shapes/annotations/")
    assert "Draw it: python datasets/generate_shapes.py. Or set DETECTRON2_DATASETS (" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_tracebacks_are_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NL_DETECTRON_TRACEBACK", "1")
    with pytest.raises(UserError, match="Give a --config-file"):
        main([])


def test_the_learning_rate_in_words() -> None:
    """Detectron2 reads STEPS for one of its schedules only."""
    cfg = get_cfg()
    assert "; learning rate 0.001, lower after 30000; " in describe_schedule(cfg, 0)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    assert "; learning rate 0.001, WarmupCosineLR; " in describe_schedule(cfg, 0)


def assert_console_has_what_matters(printed: str, output: Path) -> None:
    """Some twenty lines, the losses, AP once, where the weights are. The log has the rest, without codes."""
    before, _, after = printed.partition("total_loss: ")
    assert len(before.splitlines()) <= 20
    for text in ("device: cpu", "train: shapes_train (12 images)", "schedule: steps 0 to 3 of 2 images"):
        assert text in before
    assert "This model has 1 non-local block:\n  backbone.bottom_up.res4.non_local_1" in before
    assert after.count("bbox/AP") == after.count("segm/AP") == 1
    assert f"--input IMAGES --output drawn MODEL.WEIGHTS {output / 'model_final.pth'}" in after
    log = (output / "log.txt").read_text()
    for text in ("Running with full config", "AP) @[ IoU=0.50:0.95", "Per-category", printed[-40:]):
        assert text in log
    assert "\x1b" not in log
    assert ".unfinished" not in log + printed


@pytest.mark.slow
def test_train_resume_and_evaluate(shapes_root: Path, tmp_path: Path) -> None:
    output, config = tmp_path / "run", str(ROOT / "configs" / MASK)
    assert_console_has_what_matters(train_net(shapes_root, output, config, *STEPS), output)
    printed = train_net(shapes_root, output, config, "--resume", "SEED", "1", "SOLVER.MAX_ITER", "5")
    assert "schedule: steps 3 to 5 of 2 images" in printed
    weights = ("--eval-only", "MODEL.WEIGHTS", str(output / "model_final.pth"))
    evaluation = tmp_path / "evaluation"
    printed = train_net(shapes_root, evaluation, config, *weights)
    assert len(average_precisions(evaluation)) == 6
    assert average_precisions(evaluation) == average_precisions(output)[6:]
    assert printed.count("segm/AP") == 1
    assert f"The metrics are in {evaluation / 'inference' / 'metrics.json'}." in printed


@pytest.mark.slow
def test_keypoints(shapes_root: Path, tmp_path: Path) -> None:
    printed = train_net(shapes_root, tmp_path / "run", KEYPOINT, "SOLVER.MAX_ITER", "2")
    assert "This model has 4 non-local blocks:" in printed
    assert average_precisions(tmp_path / "run")[::3] == ["Task: bbox", "Task: keypoints"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "kind", "classes", "task"),
    [
        (MASK, "coco", "80", "segm"),
        pytest.param(KEYPOINT, "keypoints_coco", "1", "keypoints", marks=pytest.mark.long),
    ],
    ids=["mask", "keypoint"],
)
def test_on_coco(config: str, kind: str, classes: str, task: str, coco_root: Path, tmp_path: Path) -> None:
    """On real images: train and evaluate."""
    data = f"DATASETS.TRAIN ('{kind}_2017_train',) DATASETS.TEST ('{kind}_2017_val',)".split()
    sizes = "INPUT.MAX_SIZE_TEST 160 INPUT.MAX_SIZE_TRAIN 160 SOLVER.MAX_ITER 2".split()
    model = ("MODEL.ROI_HEADS.NUM_CLASSES", classes)
    train_net(coco_root, tmp_path / "run", config, *data, *sizes, *model)
    assert {"bbox/AP", f"{task}/AP"} <= read_run(tmp_path / "run").history[2].keys()
