"""Running trainings through train_net.py, several at a time; what is finished is not trained again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO

from torch.multiprocessing import _prctl_pr_set_pdeathsig
from tqdm import tqdm

from nl_detectron.errors import UserError
from nl_detectron.results import read_run

from .folder import Experiment
from .matrix import Training

TRAIN_NET = Path(__file__).resolve().parents[2] / "train_net.py"
END_SECONDS = 120  # that trainings get to write a checkpoint


def run_all(experiment: Experiment, asked: Sequence[Training], jobs: int, lock: IO[str]) -> None:
    """Run what is not finished, `jobs` at a time, with a bar of all their steps.

    Args:
        asked: in this order, but that none begins before the one whose weights it begins with is finished.
        lock: of the experiment's folder, for the trainings to hold too.

    Raises:
        UserError: at the end, if any has failed.
    """
    waiting = [training for training in asked if not experiment.finished(training)]
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, min(jobs, len(waiting))))
    steps = {training: experiment.cfg(training.arm).SOLVER.MAX_ITER for training in asked}
    running: dict[Training, subprocess.Popen] = {}
    failed: list[Training] = []
    done = {training: 0 if training in waiting else steps[training] for training in asked}
    done |= {training: experiment.step(training) for training in waiting}
    bar = tqdm(
        total=sum(steps.values()),
        initial=sum(done.values()),
        unit="step",
        desc=f"{len(asked)} trainings",
        smoothing=0,
    )
    with bar:
        try:
            while waiting or running:
                while len(running) < jobs and (training := _next(experiment, waiting)):
                    waiting.remove(training)
                    running[training] = _start(experiment, training, threads, lock)
                if not running:
                    failed += waiting  # what they begin with has failed
                    break
                bar.set_postfix_str(", ".join(map(str, running)), refresh=False)
                time.sleep(1)
                for training in [t for t, process in running.items() if process.poll() is not None]:
                    if why := _what_is_wrong(experiment, training, running.pop(training)):
                        failed.append(training)
                        tqdm.write(why)
                    done[training] = steps[training]  # also if it failed: nothing more will be done
                done |= {training: experiment.step(training) for training in running}
                bar.update(sum(done.values()) - bar.n)
        finally:
            _end(running.values())
    if failed:
        raise UserError(
            f"{len(failed)} of {len(asked)} trainings have failed: {', '.join(map(str, failed))}."
        )


def _next(experiment: Experiment, waiting: Sequence[Training]) -> Training | None:
    """The first one whose weights are there."""
    ready = (each for each in waiting if each.start is None or experiment.finished(each.start))
    return next(ready, None)


def _start(experiment: Experiment, training: Training, threads: int, lock: IO[str]) -> subprocess.Popen:
    """Start a training, or resume it; what it prints is added to console.log in its folder."""
    folder, arm = experiment.folder(training), training.arm
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(TRAIN_NET), "--config-file", arm.config_file, "--resume"]
    command += [*arm.keys, *experiment.keys, *experiment.own_keys(training)]
    variables = {"OMP_NUM_THREADS": str(threads)} | os.environ
    with (folder / "console.log").open("a") as log:
        return subprocess.Popen(
            command,
            env=variables | {"DETECTRON2_DATASETS": str(experiment.datasets)},
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # so that Ctrl-C reaches it once, through us
            preexec_fn=partial(_prctl_pr_set_pdeathsig, signal.SIGTERM),  # if we are killed
        )


def _what_is_wrong(experiment: Experiment, training: Training, process: subprocess.Popen) -> str:
    """Why a training that has ended is not finished; empty if it is, and then its last checkpoint is kept."""
    folder = experiment.folder(training)
    if process.returncode:
        said = [
            line for line in (folder / "console.log").read_text(errors="replace").split("\n") if line.strip()
        ]
        return (
            f"{training} ended with exit code {process.returncode}: {said[-1] if said else ''} (console.log)"
        )
    try:
        read_run(folder)
    except UserError as error:
        return str(error)
    for checkpoint in folder.glob("model_[0-9]*.pth"):
        checkpoint.unlink()
    return ""


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Have them write a checkpoint and end."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
