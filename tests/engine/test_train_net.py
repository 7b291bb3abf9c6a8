"""train_net.py as a user runs it: in a process of its own, from another directory."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from nl_detectron import model_zoo
from nl_detectron.engine import main
from nl_detectron.engine.command_line import train_net_parser
from nl_detectron.engine.launcher import load_config

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
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
        env={**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"},
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--config-file must be given"),
        ("--config-file {mask} MODEL.NO_SUCH_KEY 1", "MODEL.NO_SUCH_KEY"),
        ("--config-file {mask} MODEL.NON_LOCAL.RES4", "odd length"),
        ("--config-file {mask} MODEL.NON_LOCAL.RES4 x", "Type mismatch"),
        ("--config-file {mask} MODEL.NON_LOCAL.RES4 [7]", "MODEL.NON_LOCAL.RES4 must be a list of"),
        ("--config-file {mask} MODEL.NON_LOCAL.RES4 []", "MODEL.NON_LOCAL.RES4 must be a list with"),
        ("--config-file {mask} MODEL.NON_LOCAL.PAIRWISE max", "MODEL.NON_LOCAL.PAIRWISE must be one"),
        ("--config-file {keypoint} MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY 9", "HEAD_EVERY must be an"),
        ("--config-file {keypoint} MODEL.NON_LOCAL.RES3 [1]", "RES3 must be left alone"),
        ("--config-file {keypoint} TEST.AUG.ENABLED True", "TEST.AUG.ENABLED must be False"),
        ("--config-file {mask} MODEL.BACKBONE.NAME no_backbone", "no_backbone"),
        ("--config-file {mask} MODEL.RESNETS.DEPTH 51", "cannot build this model"),
        ("--config-file {mask} DATASETS.TRAIN ('shapes_trian',)", "Did you mean shapes_train"),
        ("--config-file {mask} DATASETS.TRAIN ()", "DATASETS.TRAIN must name a data set to train on"),
        ("--config-file {mask} DATASETS.TEST ('lvis_v1_val',)", "Set DETECTRON2_DATASETS"),
        ("--config-file {mask} MODEL.WEIGHTS no.pth", "MODEL.WEIGHTS must be a file or a URL"),
        ("--config-file {mask} --num-gpus 64", "--num-gpus must be left out: there is no"),
        ("--config-file {mask} --num-gpus -1", "--num-gpus must be left out: there is no"),
        ("--config-file {mask} --num-machines 2 MODEL.DEVICE cpu", "--num-machines must be 1 where"),
        ("--config-file {retinanet} TEST.AUG.ENABLED True", "TEST.AUG.ENABLED must be False"),
        ("--config-file {baseline} MODEL.NON_LOCAL.RES4 [-1]", "RES4 must be left alone"),
        ("--config-file {empty}", "empty.yaml"),
        ("--config-file {its_own_base}", "its_own_base.yaml: RecursionError"),
        ("--config-file {defaults_in_vain}", "RES4 must be left alone"),
        ("--config-file {mask} --eval-only DATASETS.TEST ()", "DATASETS.TEST must name a data set"),
        ("--config-file {mask} SOLVER.BASE_LR None", "SOLVER.BASE_LR must be a number; got None"),
        ("--config-file {mask} INPUT.MIN_SIZE_TRAIN ()", "INPUT.MIN_SIZE_TRAIN must be a tuple of lengths"),
        ("--config-file {mask} DATASETS.TEST None", "DATASETS.TEST must be a tuple; got None"),
        ("--config-file {mask} MODEL.WEIGHTS None", "MODEL.WEIGHTS must be a string; got None"),
        ("--config-file {mask} MODEL.DEVICE gpu", "MODEL.DEVICE must be a device like"),
        ("--config-file {mask} SOLVER.MAX_ITER 0", "cannot set up this training"),
        ("--config-file {mask} SOLVER.IMS_PER_BATCH 0", "IMS_PER_BATCH must be a positive multiple"),
        ("--config-file {mask} MODEL.ROI_HEADS.NUM_CLASSES 2", "NUM_CLASSES must be 4, as 'shapes_train'"),
        ("--config-file {keypoint} MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 5", "KEYPOINTS must be 17"),
        ("--config-file {mask} DATASETS.TEST ('broken_json',)", "'broken_json' cannot be read: JSONDec"),
        ("--config-file {mask} --eval-only MODEL.WEIGHTS {text}", "text.pth' cannot be loaded"),
        ("--config-file {mask} MODEL.WEIGHTS {text}", "text.pth' cannot be loaded"),
        ("--config-file {mask} --machine-rank 1", "--machine-rank from 0 to one less; got 1 and 1"),
        ("--config-file {broken}", "mapping values are not allowed"),
        ("--config-file {no_base}", "No such file or directory"),
    ],
)
def test_mistakes(
    arguments: str,
    message: str,
    shapes_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    register: Callable[..., None],
) -> None:
    (tmp_path / "broken.yaml").write_text("MODEL: a: b")
    (tmp_path / "no_base.yaml").write_text("_BASE_: nowhere.yaml")
    (tmp_path / "empty.yaml").write_text("")
    retinanet = "MODEL: {META_ARCHITECTURE: RetinaNet, DEVICE: cpu, RETINANET: {NUM_CLASSES: 4}}"
    (tmp_path / "retinanet.yaml").write_text(retinanet + "\nDATASETS: {TRAIN: [shapes_train]}")
    (tmp_path / "its_own_base.yaml").write_text("_BASE_: its_own_base.yaml")
    baseline = CONFIGS / MASK.replace("_nl", "")
    (tmp_path / "defaults_in_vain.yaml").write_text(
        f"_BASE_: {baseline}\nMODEL: {{NON_LOCAL: {{RES4: [-1]}}}}"
    )
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "text.pth").write_text("text")
    register("broken_json", {"thing_classes": list("abcd")}, str(tmp_path / "broken.json"), str(tmp_path))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    names = {path.stem: str(path) for path in (*tmp_path.glob("*.yaml"), tmp_path / "text.pth")}
    names |= {"mask": MASK, "keypoint": KEYPOINT, "baseline": MASK.replace("_nl", "")}
    values = [argument.format(**names) for argument in arguments.split()]
    output = ["OUTPUT_DIR", str(tmp_path / "output")] if values and "RES4" not in values[-1] else []
    with pytest.raises(SystemExit) as stopped:
        main([*values, *output])
    assert message in stopped.value.code
    assert stopped.value.code.startswith("error: ")
    assert "\n" not in stopped.value.code


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    """Detectron2's register_coco_instances, undone after the test."""
    names = []

    def register_for_a_while(name: str, *arguments: object) -> None:
        register_coco_instances(name, *arguments)
        names.append(name)

    yield register_for_a_while
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_resume_of_a_checkpoint_that_is_gone(shapes_root: Path, tmp_path: Path) -> None:
    (tmp_path / "last_checkpoint").write_text("model_0000099.pth")
    with pytest.raises(SystemExit, match=r"last_checkpoint names; got 'model_0000099.pth', and there is no"):
        main(["--config-file", MASK, "--resume", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)])


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
    """One line says so; mixed precision, which Detectron2 has for GPUs only, is turned off too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    overrides = ["INPUT.MIN_SIZE_TEST", "64", "SOLVER.AMP.ENABLED", "True"]
    main(["--config-file", MASK, "--eval-only", *overrides, "OUTPUT_DIR", str(tmp_path)])
    assert (tmp_path / "inference" / "instances_predictions.pth").is_file()
    printed = capsys.readouterr().out
    assert printed.count("No GPU is available: MODEL.DEVICE is set to cpu.") == 1
    assert printed.count("SOLVER.AMP.ENABLED is set to False.") == 1
