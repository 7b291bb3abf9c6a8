"""Two processes on the CPU: as torchrun starts them, or started here, to end one when the other dies."""

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from runs import KEYPOINT, MASK, ROOT, arguments, differences, finish, free_port, load, run_here, start
from torch.multiprocessing import ProcessExitedException

from nl_detectron import get_cfg
from nl_detectron.engine import distributed, main
from nl_detectron.engine.distributed import is_lost_process
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron_cli.arguments import train_net_parser

TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")
TRAIN_NET = str(ROOT / "train_net.py")
JOINING = str(ROOT / "tests" / "engine" / "joining.py")
CHECKS = ("equal_weights", "equal_steps", "no_instances")  # of two_ranks.py
EIGHT_STEPS = ("SEED", "1", "SOLVER.MAX_ITER", "8", "SOLVER.CHECKPOINT_PERIOD", "2")
PATIENCE = 30  # seconds in which the others notice that a process is gone


def torchrun(root: Path, *command: str) -> subprocess.Popen:
    return start(root, *TORCHRUN, free_port(), *command)


def start_ranks(root: Path, *command: str) -> list[subprocess.Popen]:
    """Two processes, as torchrun would start them; nothing ends one when the other dies."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **address}
    return [start(root, *command, RANK=rank, LOCAL_RANK=rank, **world) for rank in "01"]


def assert_checks_pass(config: str, root: Path, folder: Path, checks: Sequence[str]) -> None:
    ranks = start_ranks(root, str(ROOT / "tests" / "two_ranks.py"), config, str(folder), *checks)
    printed = [finish(rank) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(printed)
    assert {path.name for path in folder.glob("*.passed")} == {"0.passed", "1.passed"}


@pytest.mark.slow
def test_two_ranks(shapes_root: Path, tmp_path: Path) -> None:
    """A training with Trainer, a step that equals one of a single process, images without objects."""
    assert_checks_pass(MASK, shapes_root, tmp_path, CHECKS)


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_with_keypoints(shapes_root: Path, tmp_path: Path) -> None:
    assert_checks_pass(KEYPOINT, shapes_root, tmp_path, ("no_instances",))


@pytest.fixture(scope="module")
def trained_by_two(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training in two processes of torchrun, with EIGHT_STEPS."""
    output = tmp_path_factory.mktemp("two") / "run"
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, *EIGHT_STEPS))
    printed = finish(run)
    assert run.returncode == 0, printed
    assert "processes: 2" in printed
    return output


@pytest.mark.slow
def test_one_process_with_two_batches_a_step_is_two_processes(
    trained_by_two: Path, shapes_root: Path, tmp_path: Path
) -> None:
    """To the bit, but for the running statistics of BN, which each process has of its own batches."""
    run_here(*arguments(MASK, tmp_path, *EIGHT_STEPS, "SOLVER.ACCUMULATE", "2"))
    found = differences(load(tmp_path / "model_final.pth"), load(trained_by_two / "model_final.pth"))
    others = [name for name in found if "running_" not in name and "num_batches" not in name]
    assert others == [".trainer.processes"]


@pytest.mark.long
@pytest.mark.slow
def test_evaluation_gathers_what_one_process_finds(
    trained_by_two: Path, shapes_root: Path, tmp_path: Path
) -> None:
    weights = ["--eval-only", "MODEL.WEIGHTS", str(trained_by_two / "model_final.pth")]
    weights += ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.01"]  # for more than a few
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, tmp_path / "two", *weights))
    printed = finish(run)
    assert run.returncode == 0, printed
    run_here(*arguments(MASK, tmp_path / "one", *weights))
    one, two = (
        sorted(
            json.loads((tmp_path / name / "inference" / "coco_instances_results.json").read_text()),
            key=lambda found: (found["image_id"], -found["score"], found["bbox"]),
        )
        for name in ("one", "two")
    )
    assert len(one) > 20
    assert one == two


@pytest.mark.long
@pytest.mark.slow
def test_interrupted_and_resumed(trained_by_two: Path, shapes_root: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun, which passes it on: all processes end after the same step,
    and go on from there to the bit."""
    output = tmp_path / "run"
    workers = ("DATALOADER.NUM_WORKERS", "1")
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, *EIGHT_STEPS, *workers))
    while not (output / "model_0000001.pth").exists():
        assert run.poll() is None
        time.sleep(0.01)
    run.send_signal(signal.SIGTERM)
    assert "SIGTERM received; stopping after the current step" in finish(run)
    assert 1 <= load(output / (output / "last_checkpoint").read_text())["iteration"] < 7
    run = torchrun(shapes_root, TRAIN_NET, *arguments(MASK, output, "--resume", *EIGHT_STEPS))
    printed = finish(run)
    assert run.returncode == 0, printed
    expected = load(trained_by_two / "model_final.pth")
    assert differences(load(output / "model_final.pth"), expected) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "timeout", "seconds"),
    [
        (signal.SIGKILL, "30", PATIENCE),
        pytest.param(signal.SIGSTOP, "0.25", 15 + PATIENCE, marks=pytest.mark.long),
    ],
    ids=["killed", "hanging"],
)
def test_a_process_that_is_gone_ends_the_others(
    number: int, timeout: str, seconds: float, shapes_root: Path, tmp_path: Path
) -> None:
    """Without torchrun, which would end them itself: as on other machines."""
    output = tmp_path / "run"
    options = ("--timeout", timeout, "SOLVER.MAX_ITER", "1000", "SOLVER.CHECKPOINT_PERIOD", "2")
    ranks = start_ranks(shapes_root, TRAIN_NET, *arguments(MASK, output, *options))
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
    expected = "error: The communication with another process failed: "
    assert printed.splitlines()[-1].startswith(expected)
    assert "Traceback" not in printed
    assert load(output / (output / "last_checkpoint").read_text())["iteration"] >= 1


def assert_joining_fails(device: str, message: str, ranks_that_wait: Sequence[int]) -> None:
    ranks = start_ranks(ROOT, JOINING, device)
    printed = [finish(rank, 60).splitlines() for rank in ranks]
    for rank in ranks_that_wait:
        seconds, line = printed[rank]
        assert float(seconds) < 5
        assert line.startswith(f"error{' in process 1' if rank else ''}: {message}")
        assert ranks[rank].returncode == 1


@pytest.mark.slow
def test_processes_on_different_devices_end_at_once() -> None:
    found = "cpu in process 0; cuda in process 1"
    message = f"The processes have different types of devices: {found}. Make GPUs available to all"
    assert_joining_fails("cuda", message, (0, 1))


@pytest.mark.slow
def test_a_process_that_never_starts_ends_the_others() -> None:
    message = "The communication with another process failed: Timed out after 2 seconds waiting for clients"
    assert_joining_fails("late", message, (0,))


@pytest.mark.long
@pytest.mark.slow
def test_torchrun_restarts_processes() -> None:
    """They must not find the addresses of those before them."""
    run = start(ROOT, *TORCHRUN, free_port(), "--max-restarts", "1", JOINING, "cpu", "fail once")
    printed = finish(run)
    assert run.returncode == 0, printed
    assert printed.count("joined") == 4


@pytest.mark.parametrize(("backend", "gpu"), [("nccl", 1), ("gloo", 0)])
def test_processes_share_a_gpu_with_gloo_only(
    backend: str, gpu: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU that the second of two processes takes, and tells NCCL, where there are 2 - or 1 with gloo."""
    join = Mock()
    store = (distributed.dist.HashStore(), 1, 2)
    monkeypatch.setenv("NL_DETECTRON_BACKEND", backend)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2" if name.endswith("SIZE") else "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpu + 1)
    monkeypatch.setattr("torch.cuda.set_device", (set_device := Mock()))
    monkeypatch.setattr(distributed.dist, "rendezvous", lambda *_, **__: iter([store]))
    monkeypatch.setattr(distributed.dist, "init_process_group", join)
    monkeypatch.setattr(distributed, "synchronize", lambda *_: [b"cuda", b"cuda"])
    monkeypatch.setattr(distributed, "create_local_process_group", Mock())
    args = train_net_parser().parse_args([])
    distributed.check_processes(get_cfg(), args)
    distributed._join("cuda", timedelta(minutes=1))
    set_device.assert_called_once_with(torch.device("cuda", gpu))
    assert join.call_args.args == (backend,)
    assert join.call_args.kwargs["device_id"] == (torch.device("cuda", 1) if backend == "nccl" else None)
    monkeypatch.delenv("NL_DETECTRON_BACKEND")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="--nproc-per-node is 2, but this machine has 1 GPUs"):
        distributed.check_processes(get_cfg(), args)


def test_a_process_that_the_system_kills_is_named() -> None:
    """As the launcher of --num-gpus reports it, where nothing else is printed."""
    killed = {"error_index": 1, "error_pid": 1, "exit_code": -9, "signal_name": "SIGKILL"}
    with pytest.raises(SystemExit, match="^error: process 1 was ended by SIGKILL$"), one_line_errors():
        raise ProcessExitedException("process 1 terminated with signal SIGKILL", **killed)


def test_errors_that_say_a_process_is_lost() -> None:
    assert is_lost_process(RuntimeError("[..gloo/transport/tcp/pair.cc:534] Connection closed by peer"))
    assert not is_lost_process(RuntimeError("shape mismatch"))
    assert not is_lost_process(ValueError("gloo"))


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        ({}, (), "RANK and WORLD_SIZE are set, but not by torchrun"),
        ({"LOCAL_RANK": "0"}, ("--num-gpus", "2"), "Under torchrun, --nproc-per-node and --nnodes replace"),
        ({"LOCAL_RANK": "0"}, ("MODEL.DEVICE", "cuda:1"), "MODEL.DEVICE cuda:1 is one GPU. Set it to cuda"),
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
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("nl_detectron.engine.launcher.run_in_processes", None)  # it would wait for the other
    with pytest.raises(SystemExit) as stopped:
        main(["--config-file", KEYPOINT, *arguments])
    assert stopped.value.code.startswith("error: ")
    assert message in stopped.value.code
