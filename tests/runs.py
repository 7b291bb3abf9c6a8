"""Runs of train_net.py for tests: light models on small shapes, in processes of their own or in this one."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from nl_detectron_shapes import register_shapes

from nl_detectron.engine import main, read_config
from nl_detectron_cli.arguments import train_net_parser

ROOT = Path(__file__).parents[1]
MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
SMALL = (
    "SOLVER.IMS_PER_BATCH 2 INPUT.MIN_SIZE_TRAIN (64,) INPUT.MIN_SIZE_TEST 64 SOLVER.STEPS () "
    "MODEL.DEVICE cpu"
).split()
STEPS = ("SEED", "1", "SOLVER.MAX_ITER", "3", "SOLVER.CHECKPOINT_PERIOD", "2")


def arguments(config: str, output: Path, *others: str) -> list[str]:
    """Those of train_net.py. Flags have to come before keys of the config."""
    return ["--config-file", config, *others, *SMALL, "OUTPUT_DIR", str(output)]


def load_config(*argv: str) -> CfgNode:
    """The config of a command line of train_net.py."""
    cfg, _ = read_config(train_net_parser().parse_args(argv))
    return cfg


def environment(root: Path, **variables: str) -> dict[str, str]:
    return {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1", **variables}


def start(root: Path, *command: str, **variables: str) -> subprocess.Popen:
    """A Python process with one thread, which finds the shapes below `root`; its output in one pipe."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", *command],
        env=environment(root, **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its workers can be ended with it
    )


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def finish(process: subprocess.Popen, seconds: float = 120) -> str:
    """What it printed, once it has ended; it is killed if it takes longer."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"not finished after {seconds} s: {process.communicate()[0][-2000:]}")


def run_here(*argv: str) -> None:
    """train_net.py in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes: sums depend on it
    try:
        main(argv)
    finally:
        torch.set_num_threads(threads)


def refusal(tool: Callable[..., object], *words: object) -> str:
    """What a command line says, in one line, when it ends with an error."""
    with pytest.raises(SystemExit) as stopped:
        tool(*words)
    assert "\n" not in stopped.value.code
    return stopped.value.code


@contextmanager
def registrations_forgotten() -> Iterator[None]:
    """Data sets that are registered within it are gone after it, as with a process of their own; the shapes
    are where they were."""
    before = set(DatasetCatalog.list())
    root = Path(MetadataCatalog.get("shapes_train").image_root).parents[1]
    try:
        yield
    finally:
        register_shapes(root)
        for name in set(DatasetCatalog.list()) - before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def load(path: Path) -> dict[str, object]:
    return torch.load(path, weights_only=True)


def differences(one: object, other: object, where: str = "") -> list[str]:
    """Where two checkpoints differ, to the bit; configs name their own folders."""
    if isinstance(one, torch.Tensor):
        return [] if one.equal(other) else [where]
    if isinstance(one, Mapping):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [
            place
            for key in one
            if key != "config"
            for place in differences(one[key], other[key], f"{where}.{key}")
        ]
    if isinstance(one, (list, tuple)) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [place for k, pair in pairs for place in differences(*pair, f"{where}.{k}")]
    return [] if one == other else [where]
