#!/usr/bin/env python
"""Train the light Mask R-CNN with a non-local block for a given time, on two CPU cores.

- Trainings are killed (SIGKILL, at random moments) and resumed until they finish. Their last checkpoints and
  detections are compared, to the bit, with those of a training that was never killed.
- Beside them, one training evaluates and saves without end. Its memory and open files are sampled.

Prints a table, writes soak.json and soak.png, and exits with 1 if a training differs, if a killed one
leaves a process behind, if memory or open files grow, or if Ctrl-C gives another exit code than 130.

    python tools/soak.py --minutes 20 --output output/soak
"""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import numpy as np
import psutil
import torch
from matplotlib.figure import Figure
from nl_detectron_shapes import write_shapes
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
SMALL = (
    "SEED 1 MODEL.DEVICE cpu SOLVER.IMS_PER_BATCH 2 SOLVER.STEPS () INPUT.MIN_SIZE_TRAIN (64,) "
    "INPUT.MIN_SIZE_TEST 64 DATALOADER.NUM_WORKERS 1"
).split()
KILLED = "SOLVER.MAX_ITER 40 SOLVER.CHECKPOINT_PERIOD 5".split()
ENDLESS = "SOLVER.MAX_ITER 1000000 SOLVER.CHECKPOINT_PERIOD 25 TEST.EVAL_PERIOD 25".split()
# glibc returns freed memory at once, so that resident memory is the memory in use.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
PATIENCE = 10  # seconds that the data loader's workers have to end after a kill
AFTER_CTRL_C = 130  # the exit code of train_net.py


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="20 by default")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--output", type=Path, default=Path("output/soak"), metavar="FOLDER")
    args = parser.parse_args()
    with one_line_errors():
        if args.minutes < 2:
            raise UserError(f"--minutes must be at least 2; got {args.minutes:g}.")
        sys.exit(0 if soak(args.output.resolve(), args.minutes, args.seed) else 1)


def soak(output: Path, minutes: float, seed: int) -> bool:
    """Soak, report, and return whether all went well."""
    if output.exists() and not (output / "soak.json").exists():
        raise UserError(f"--output must be a new folder, or one of an earlier soak; got {output}.")
    shutil.rmtree(output, ignore_errors=True)
    write_shapes(output / "datasets" / "shapes", train=40, val=20, size=96)
    began = time.monotonic()
    with train_net(output / "uninterrupted", *KILLED) as process:
        process.wait()
    longest, end = time.monotonic() - began, time.monotonic() + 60 * minutes
    generator, kills, left_behind, trainings, differing = random.Random(seed), [], 0, 0, 0
    with train_net(output / "endless", *ENDLESS) as process, tqdm(total=int(60 * minutes), unit="s") as bar:
        watch = Watch(process, output / "endless", bar)
        while time.monotonic() < end:
            moments, left = train_with_kills(output / "killed", watch, longest, end, generator)
            kills += moments
            left_behind += left
            trainings += 1
            if what := difference(output / "killed", output / "uninterrupted"):
                differing += 1
                tqdm.write(f"A training came out differently after {len(moments)} kills: {what}")
        process.send_signal(signal.SIGINT)
        process.wait()
    results = {"date": date.today().isoformat(), "kills": len(kills), "trainings": trainings}
    results |= {"trainings that differ": differing, "processes left behind": left_behind}
    results |= {"exit code after Ctrl-C": process.returncode, "samples": len(watch.samples)}
    memory, files = (growth([sample[k] for sample in watch.samples]) for k in (1, 2))
    results |= {f"MB, {name}": value for name, value in memory.items()}
    results |= {f"open files, {name}": value for name, value in files.items()}
    (output / "soak.json").write_text(json.dumps(results, indent=1))
    draw(watch.samples, kills).savefig(output / "soak.png", dpi=120)
    print(tabulate(results.items(), ["what", "figure"], tablefmt="github"))
    grew = any(each["last third"] - each["middle third"] > each["noise"] for each in (memory, files))
    return not (differing or left_behind or grew) and process.returncode == AFTER_CTRL_C


@contextmanager
def train_net(folder: Path, *arguments: str) -> Iterator[subprocess.Popen]:
    """Run train_net.py with one thread on the shapes beside `folder`; kill it at the end of the context.

    Args:
        folder: its OUTPUT_DIR. What it prints is appended to `folder`.log.
    """
    script, config = str(ROOT / "train_net.py"), str(ROOT / CONFIG)
    command = [sys.executable, "-W", "ignore", script, "--config-file", config]
    command += [*arguments, *SMALL, "OUTPUT_DIR", str(folder)]
    datasets = {"DETECTRON2_DATASETS": str(folder.with_name("datasets"))}
    environment = {**os.environ, **ALLOCATOR, **datasets, "OMP_NUM_THREADS": "1"}
    with folder.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Watch:
    """Samples the endless training while others run.

    Attributes:
        samples: (moment in seconds of time.monotonic(), resident MB, open files).
    """

    def __init__(self, process: subprocess.Popen, folder: Path, bar: tqdm) -> None:
        self.samples: list[tuple[float, float, int]] = []
        self._process, self._folder, self._bar = process, folder, bar
        self._began = time.monotonic()

    def wait(self, other: subprocess.Popen, until: float) -> bool:
        """Sample until another process ends or time is up; return whether it ended."""
        watched = psutil.Process(self._process.pid)
        while other.poll() is None and time.monotonic() < until:
            if self._process.poll() is not None:
                raise UserError(f"The endless training ended: see {self._folder}.log.")
            checkpoints = sorted(self._folder.glob("model_*.pth"))
            for path in checkpoints[:-2]:
                path.unlink()  # or they would fill the disk
            if checkpoints:  # it has started
                memory, files = watched.memory_info().rss / 1e6, watched.num_fds()
                self.samples.append((time.monotonic(), memory, files))
            self._bar.update(int(time.monotonic() - self._began) - self._bar.n)
            time.sleep(0.2)
        return other.poll() is not None


def train_with_kills(
    folder: Path, watch: Watch, longest: float, end: float, generator: random.Random
) -> tuple[list[float], int]:
    """Train anew. Until `end`, kill each process after at most `longest` seconds and resume.

    Returns:
        The moments of the kills, in seconds of time.monotonic(), and how many processes outlived one.
    """
    shutil.rmtree(folder, ignore_errors=True)
    kills, left_behind = [], 0
    while True:
        now = time.monotonic()
        until = now + generator.uniform(0, longest) if now < end else math.inf
        with train_net(folder, "--resume", *KILLED) as process:
            if watch.wait(process, until):
                return kills, left_behind
            workers = psutil.Process(process.pid).children(recursive=True)
        kills.append(time.monotonic())
        left_behind += len(psutil.wait_procs(workers, timeout=PATIENCE)[1])


def difference(folder: Path, other: Path) -> str:
    """Where the last checkpoints (weights, optimizer, schedule) or the detections of two trainings differ."""
    checkpoints = []
    for each in (folder, other):
        if not (each / "model_final.pth").exists():
            raise UserError(f"A training failed: see {each}.log.")
        checkpoint = torch.load(each / "model_final.pth", weights_only=True)
        del checkpoint["trainer"]["config"], checkpoint["non_local"], checkpoint["metadata"]  # text
        checkpoints.append(checkpoint)
    try:
        torch.testing.assert_close(*checkpoints, rtol=0, atol=0, equal_nan=True)
    except AssertionError as error:
        return str(error)
    detections = [(each / "inference/coco_instances_results.json").read_text() for each in (folder, other)]
    return "" if detections[0] == detections[1] else "The detections differ."


def growth(values: Sequence[float]) -> dict[str, float]:
    """The medians of the middle and the last third, and the noise; the first third is for warming up.

    The noise is how far the medians of ten parts of the middle third lie apart.
    """
    _, middle, last = np.array_split(values, 3)
    noise = np.ptp([np.median(part) for part in np.array_split(middle, 10)])
    figures = {"middle third": np.median(middle), "last third": np.median(last), "noise": noise}
    return {name: round(float(value), 1) for name, value in figures.items()}


def draw(samples: Sequence[tuple[float, float, int]], kills: Sequence[float]) -> Figure:
    """Memory and open files of the endless training over time, and the moments of the kills."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    moments, memory, files = np.array(samples).T
    for axes, values in ((above, memory), (below, files)):
        axes.plot((moments - moments[0]) / 60, values, linewidth=0.6)
        for kill in kills:
            axes.axvline((kill - moments[0]) / 60, color="tab:red", linewidth=0.5, alpha=0.5)
    above.set_ylabel("resident memory, MB")
    below.set(ylabel="open files", xlabel="minutes", ylim=(0, None))
    above.set_title(
        "A training that evaluates and saves every 25 steps; red: another one is killed beside it"
    )
    return figure


if __name__ == "__main__":
    main()
