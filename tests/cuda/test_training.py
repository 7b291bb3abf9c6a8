"""Trainings on a GPU: in half precision, resumed, moved between devices, in several processes."""

import math
from itertools import combinations
from pathlib import Path

import pytest
import torch
from runs import KEYPOINT, MASK, ROOT, STEPS, arguments, finish, free_port, load, run_here, start

from nl_detectron.engine import read_run

pytestmark = pytest.mark.cuda

TRAIN_NET = str(ROOT / "train_net.py")
GPU = ("MODEL.DEVICE", "cuda")  # after runs.SMALL, which names the CPU
PRECISIONS = {
    "float32": (),
    "bfloat16": ("SOLVER.AMP.PRECISION", "bfloat16"),
    "float16": ("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "float16"),
    "Detectron2's": ("SOLVER.AMP.ENABLED", "True"),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [MASK, KEYPOINT])
def test_twenty_steps(config: str, precision: str, shapes_root: Path, tmp_path: Path) -> None:
    """The loss stays finite and below 20, and what was learned can be evaluated."""
    options = ("SEED", "1", "SOLVER.MAX_ITER", "20", *PRECISIONS[precision])
    run_here(*arguments(config, tmp_path, *options), *GPU)
    state = load(tmp_path / "model_final.pth")["model"]
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    assert all(value.isfinite().all() for value in state.values())
    loss = read_run(tmp_path).history[19]["total_loss"]
    assert math.isfinite(loss)
    assert 0 < loss < 20
    assert (tmp_path / "inference" / "coco_instances_results.json").is_file()


def test_killed_and_resumed(shapes_root: Path, tmp_path: Path) -> None:
    """The resumed training is as near to an uninterrupted one as others are: a GPU sums in any order, and
    where there is a region more or less, others are drawn.
    """
    killed = start(
        shapes_root,
        str(ROOT / "tests" / "engine" / "killed_training.py"),
        "within a step",
        *arguments(MASK, tmp_path / "resumed", *STEPS),
        *GPU,
    )
    finish(killed)
    assert not (tmp_path / "resumed" / "model_final.pth").exists()
    run_here(*arguments(MASK, tmp_path / "resumed", "--resume", *STEPS), *GPU)
    others = [f"never_{k}" for k in range(4)]
    for name in others:
        run_here(*arguments(MASK, tmp_path / name, *STEPS), *GPU)
    resumed, *never = (load(tmp_path / name / "model_final.pth") for name in ("resumed", *others))
    assert resumed["iteration"] == never[0]["iteration"]
    spread = max(distance(one, other) for one, other in combinations(never, 2))
    assert min(distance(resumed, other) for other in never) <= spread + 1e-4


def distance(one: dict, other: dict) -> float:
    """Between the parameters of two checkpoints, relative to their norm."""
    one, other = (
        torch.cat(
            [value.flatten().double().cpu() for name, value in each["model"].items() if "num_" not in name]
        )
        for each in (one, other)
    )
    return ((one - other).norm() / one.norm()).item()


def test_from_the_cpu_to_the_gpu_and_back(shapes_root: Path, tmp_path: Path) -> None:
    for steps, device in (("2", "cpu"), ("4", "cuda"), ("6", "cpu")):
        options = ("--resume", "SEED", "1", "SOLVER.MAX_ITER", steps)
        run_here(*arguments(MASK, tmp_path, *options), "MODEL.DEVICE", device)
        assert load(tmp_path / "model_final.pth")["iteration"] == int(steps) - 1


def test_float32_goes_on_in_float16_and_back(shapes_root: Path, tmp_path: Path) -> None:
    for steps, precision in (("2", "float32"), ("4", "float16"), ("6", "float32")):
        options = ("--resume", "SEED", "1", "SOLVER.MAX_ITER", steps, *PRECISIONS[precision])
        run_here(*arguments(MASK, tmp_path, *options), *GPU)
        assert load(tmp_path / "model_final.pth")["iteration"] == int(steps) - 1


@pytest.mark.parametrize(
    ("processes", "backend"), [("1", "nccl"), ("2", "gloo")], ids=["one by NCCL", "two share one by Gloo"]
)
def test_torchrun(processes: str, backend: str, shapes_root: Path, tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", free_port())
    variables = {"NL_DETECTRON_BACKEND": "gloo"} if backend == "gloo" else {}
    run = start(shapes_root, *launcher, TRAIN_NET, *arguments(MASK, tmp_path, *STEPS), *GPU, **variables)
    printed = finish(run)
    assert run.returncode == 0, printed
    assert f"{processes} processes" in printed
    assert (tmp_path / "model_final.pth").is_file()
