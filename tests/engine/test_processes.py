"""Two processes on the CPU, as torchrun starts them, and without torchrun to end one when the other dies."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from runs import KEYPOINT, MASK, ROOT, arguments, differences, finish, load, run_here, start
from torch.multiprocessing import ProcessExitedException

from nl_detectron.engine import main
from nl_detectron.errors import one_line_errors

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")
TRAIN_NET = str(ROOT / "train_net.py")
STEPS = ("SEED", "1", "SOLVER.MAX_ITER", "5", "SOLVER.CHECKPOINT_PERIOD", "2")
PATIENCE = 30  # seconds in which the others notice that a process is no more


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(root: Path, *command: str) -> subprocess.Popen:
    python_path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    return start(root, *TORCHRUN, free_port(), *command, PYTHONPATH=python_path)


@pytest.mark.parametrize(
    ("check", "config"),
    [
        ("equal_weights", "mask"),
        ("equal_steps", "mask"),
        ("equal_steps", "keypoint"),
        ("no_instances", "mask"),
        ("no_instances", "keypoint"),
    ],
)
def test_two_ranks(check: str, config: str, shapes_root: Path, tmp_path: Path) -> None:
    run = torchrun(shapes_root, str(ROOT / "tests" / "two_ranks.py"), check, config, str(tmp_path))
    printed = finish(run)
    assert run.returncode == 0, printed
    assert {path.name for path in tmp_path.glob("*.passed")} == {"0.passed", "1.passed"}


@pytest.fixture(scope="module")
def trained(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training in two processes."""
    output = tmp_path_factory.mktemp("two") / "run"
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, *STEPS))
    printed = finish(run)
    assert run.returncode == 0, printed
    assert "2 processes" in printed
    return output


def test_evaluation_gathers_what_one_process_finds(trained: Path, shapes_root: Path, tmp_path: Path) -> None:
    weights = ("--eval-only", "MODEL.WEIGHTS", str(trained / "model_final.pth"))
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, tmp_path / "two", *weights))
    printed = finish(run)
    assert run.returncode == 0, printed
    run_here(*arguments(MASK, tmp_path / "one", *weights))
    detections = [
        sorted(
            json.loads((tmp_path / name / "inference/coco_instances_results.json").read_text()),
            key=lambda found: (found["image_id"], -found["score"], found["bbox"]),
        )
        for name in ("one", "two")
    ]
    assert len(detections[0]) > 20
    assert detections[0] == detections[1]
    logs = [(tmp_path / name / "log.txt").read_text().splitlines() for name in ("one", "two")]
    metrics = [[line.split("copypaste: ")[1] for line in log if "copypaste: " in line] for log in logs]
    assert len(metrics[0]) == 6
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_interrupted_and_resumed(number: int, trained: Path, shapes_root: Path, tmp_path: Path) -> None:
    """Ctrl-C at the terminal, or SIGTERM to torchrun, which it passes on to the processes and their workers:
    all end after the same step, and go on from there to the bit."""
    output = tmp_path / "run"
    workers = ("DATALOADER.NUM_WORKERS", "1")
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, *STEPS, *workers))
    while not (output / "model_0000001.pth").exists():
        assert run.poll() is None
        time.sleep(0.01)
    os.killpg(run.pid, number) if number == signal.SIGINT else run.send_signal(number)
    assert f"{signal.Signals(number).name}: this ends after the step that is running" in finish(run)
    assert load(output / (output / "last_checkpoint").read_text())["iteration"] in (1, 2, 3)
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, "--resume", *STEPS))
    printed = finish(run)
    assert run.returncode == 0, printed
    assert differences(load(output / "model_final.pth"), load(trained / "model_final.pth")) == []


@pytest.mark.parametrize(
    ("number", "timeout", "seconds"),
    [(signal.SIGKILL, "30", PATIENCE), (signal.SIGSTOP, "0.25", 15 + PATIENCE)],
    ids=["killed", "hanging"],
)
def test_a_process_that_is_no_more_ends_the_others(
    number: int, timeout: str, seconds: float, shapes_root: Path, tmp_path: Path
) -> None:
    """Without torchrun, which would end them itself: as on other machines."""
    output = tmp_path / "run"
    shared = {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": free_port(),
    }
    command = (TRAIN_NET, *arguments(MASK, output, "--timeout", timeout, "SOLVER.MAX_ITER", "1000"))
    command += ("SOLVER.CHECKPOINT_PERIOD", "2")
    ranks = [start(shapes_root, *command, RANK=rank, LOCAL_RANK=rank, **shared) for rank in "01"]
    try:
        while not (output / "model_0000001.pth").exists():
            assert ranks[0].poll() is None
            time.sleep(0.05)
        ranks[1].send_signal(number)
        printed = finish(ranks[0], seconds)
    finally:
        ranks[1].kill()
        ranks[1].communicate()
    assert ranks[0].returncode == 1
    last = printed.splitlines()[-1]
    assert last.startswith(
        f"error: another process has ended, or did not answer in time (--timeout {timeout} m"
    )
    assert "Traceback" not in printed
    assert load(output / (output / "last_checkpoint").read_text())["iteration"] >= 1


def test_a_process_that_the_system_kills_is_named() -> None:
    """As the launcher of --num-gpus reports it, where nothing else is printed."""
    with pytest.raises(SystemExit, match="^error: process 1 was ended by SIGKILL$"), one_line_errors():
        raise ProcessExitedException(
            "process 1 terminated with signal SIGKILL",
            error_index=1,
            error_pid=1,
            exit_code=-9,
            signal_name="SIGKILL",
        )


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ({}, (), r"RANK and WORLD_SIZE are set, as by torchrun; LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, "),
        ({"LOCAL_RANK": "0"}, ("--num-gpus", "2"), r"--num-gpus and --num-machines must be left out under"),
        (
            {"LOCAL_RANK": "0"},
            ("SOLVER.IMS_PER_BATCH", "3"),
            r"positive multiple of 2 \(the processes\); got 3",
        ),
        ({"LOCAL_RANK": "0"}, ("--timeout", "0"), r"--timeout must be above zero, in minutes; got 0"),
    ],
)
def test_mistakes(
    given: dict[str, str],
    arguments: tuple[str, ...],
    message: str,
    shapes_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = {"LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} if given else {}
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **given, **others}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        main(["--config-file", KEYPOINT, *arguments])
