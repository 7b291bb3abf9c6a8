"""train_net.py as a user runs it: in a process of its own, from another directory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from nl_detectron.engine.command_line import train_net_parser
from runs import KEYPOINT, MASK, ROOT, environment

from nl_detectron import model_zoo
from nl_detectron.engine import main
from nl_detectron.engine.launcher import load_config

CONFIGS = ROOT / "configs"
SMALL = (
    "SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (96,) INPUT.MIN_SIZE_TEST 96 SOLVER.STEPS () "
    "MODEL.DEVICE cpu SEED 1"
).split()
COCO = "INPUT.MAX_SIZE_TEST 160 INPUT.MAX_SIZE_TRAIN 160".split()


def train_net(root: Path, output: Path, *arguments: str) -> str:
    """Run train_net.py; all that it prints."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), *arguments]
    result = subprocess.run(
        [*command, *SMALL, "OUTPUT_DIR", str(output)],
        cwd=output.parent,
        env=environment(root),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def average_precision(printed: str) -> dict[str, list[float]]:
    """Detectron2's copypaste lines: the metrics of each task."""
    lines = [line.split("copypaste: ")[1] for line in printed.splitlines() if "copypaste: " in line]
    return {
        name.removeprefix("Task: "): [float(value) for value in values.split(",")]
        for name, values in zip(lines[::3], lines[2::3], strict=True)
    }


def assert_same(results: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert results.keys() == expected.keys()
    for task in expected:
        np.testing.assert_array_equal(results[task], expected[task])  # a nan equals a nan


def test_train_resume_and_evaluate(shapes_root: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    config = ("--config-file", str(CONFIGS / MASK))
    printed = train_net(shapes_root, output, *config, "SOLVER.MAX_ITER", "3")
    assert "This model has 1 non-local block:" in printed
    assert "backbone.bottom_up.res4.non_local_1" in printed
    assert "Starting training from iteration 0" in printed
    assert {"bbox", "segm"} == set(average_precision(printed))
    assert (output / "model_final.pth").is_file()

    printed = train_net(shapes_root, output, *config, "--resume", "SOLVER.MAX_ITER", "5")
    assert "Starting training from iteration 3" in printed
    trained = average_precision(printed)
    checkpoint = torch.load(output / "model_final.pth", weights_only=True)
    assert checkpoint["iteration"] == 4

    weights = ("--eval-only", "MODEL.WEIGHTS", str(output / "model_final.pth"))
    printed = train_net(shapes_root, tmp_path / "evaluation", *config, *weights)
    assert_same(average_precision(printed), trained)
    assert "Starting training" not in printed


def test_keypoints(shapes_root: Path, tmp_path: Path) -> None:
    config = ("--config-file", KEYPOINT)  # by its name in the model zoo
    printed = train_net(shapes_root, tmp_path / "run", *config, "SOLVER.MAX_ITER", "2")
    assert "This model has 4 non-local blocks:" in printed
    assert {"bbox", "keypoints"} == set(average_precision(printed))


def test_mask_on_coco(coco_root: Path, tmp_path: Path) -> None:
    """On real images: train, resume, and evaluate without training."""
    output = tmp_path / "run"
    overrides = "DATASETS.TRAIN ('coco_2017_train',) DATASETS.TEST ('coco_2017_val',)"
    overrides = [*overrides.split(), "MODEL.ROI_HEADS.NUM_CLASSES", "80", *COCO]
    config = ("--config-file", str(CONFIGS / MASK))
    train_net(coco_root, output, *config, *overrides, "SOLVER.MAX_ITER", "2")
    resume = ("--resume", "SOLVER.MAX_ITER", "3")
    trained = average_precision(train_net(coco_root, output, *config, *resume, *overrides))
    assert set(trained) == {"bbox", "segm"}
    weights = ("--eval-only", "MODEL.WEIGHTS", str(output / "model_final.pth"))
    printed = train_net(coco_root, tmp_path / "evaluation", *config, *weights, *overrides)
    assert_same(average_precision(printed), trained)


def test_keypoints_on_coco(coco_root: Path, tmp_path: Path) -> None:
    overrides = (
        "DATASETS.TRAIN ('keypoints_coco_2017_train',) DATASETS.TEST ('keypoints_coco_2017_val',)"
    ).split()
    config = ("--config-file", str(CONFIGS / KEYPOINT))
    printed = train_net(coco_root, tmp_path / "run", *config, *overrides, *COCO, "SOLVER.MAX_ITER", "2")
    assert set(average_precision(printed)) == {"bbox", "keypoints"}


def test_a_mistake_is_one_line_without_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), "--config-file", "no.yaml"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: --config-file must be a file or a config of nl_detectron")
    assert result.stderr.count("\n") == 1


def test_config_of_a_baseline_run_is_no_config_of_blocks(shapes_root: Path, tmp_path: Path) -> None:
    """It has all keys of MODEL.NON_LOCAL, at their defaults, because the run wrote it."""
    cfg = model_zoo.get_config(MASK.replace("_nl", ""))
    (tmp_path / "config.yaml").write_text(cfg.dump())
    arguments = ["--config-file", str(tmp_path / "config.yaml"), "MODEL.DEVICE", "cpu"]
    args = train_net_parser().parse_args(arguments)
    assert load_config(args).MODEL.NON_LOCAL == cfg.MODEL.NON_LOCAL


def test_tracebacks_are_to_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NL_DETECTRON_TRACEBACK", "1")
    with pytest.raises(ValueError, match="--config-file must be given"):
        main([])


def test_without_gpu_it_runs_on_the_cpu(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line on stderr says so; another that mixed precision, which Detectron2 has for GPUs only, is ours."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = ["INPUT.MIN_SIZE_TEST", "64", "SOLVER.AMP.ENABLED", "True"]
    main(["--config-file", MASK, "--eval-only", *overrides, "OUTPUT_DIR", str(tmp_path)])
    assert (tmp_path / "inference" / "instances_predictions.pth").is_file()
    printed = capsys.readouterr().err
    assert printed.count("No GPU is available: MODEL.DEVICE is set to cpu.") == 1
    assert printed.count("SOLVER.AMP.PRECISION bfloat16 takes its place.") == 1
