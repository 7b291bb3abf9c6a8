"""train_net.py on small shapes, in a process of its own with one thread."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "SEED 1 MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 SOLVER.STEPS () INPUT.MIN_SIZE_TRAIN (64,) "
    "INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 1"
).split()
# glibc gives what is freed back at once, so that the memory that is seen is the memory in use.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}


def start_train_net(datasets: Path, output: Path, *arguments: str) -> subprocess.Popen:
    """Start it; what it prints is added to `output`.log.

    Args:
        arguments: flags, then keys of the config and their values.
    """
    config = ROOT / "configs/quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
    command = [sys.executable, "-W", "ignore", str(ROOT / "train_net.py"), "--config-file", str(config)]
    command += [*arguments, *SMALL, "OUTPUT_DIR", str(output)]
    environment = {**os.environ, **ALLOCATOR, "DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1"}
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.with_suffix(".log").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)
