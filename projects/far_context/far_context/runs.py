"""Running trainings through train_net.py, several at a time. Finished ones are skipped, others resumed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from functools import partial
from typing import IO

from torch.multiprocessing import _prctl_pr_set_pdeathsig
from tqdm import tqdm

from nl_detectron.engine import read_run
from nl_detectron.errors import UserError

from .folder import Experiment
from .matrix import PROJECT, Training

TRAIN_NET = PROJECT / "train_net.py"
SECONDS_TO_END = 120  # for a training to write a checkpoint after SIGTERM
POLL_SECONDS = 1
# Memory in large pages, and kept, makes steps on a CPU faster. Other C libraries than glibc ignore it.
_MEMORY = (
    "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483648"
)
FILE_SECONDS = 20  # between two states of the bar where it goes into a file


def run_all(experiment: Experiment, asked: Sequence[Training], jobs: int, lock: IO[str]) -> None:
    """Run the trainings that are not finished, with a progress bar over all steps.

    Args:
        asked: run in this order, except that a training waits for the one that it starts from.
        jobs: how many run at a time.
        lock: of the experiment's folder; the trainings hold it too.

    Raises:
        UserError: at the end, if trainings have failed.
    """
    needed = {training for training in (*asked, *(each.start for each in asked)) if training}
    trained = {training for training in needed if experiment.finished(training)}
    waiting = [training for training in asked if training not in trained]
    threads = max(1, len(os.sched_getaffinity(0)) // max(1, min(jobs, len(waiting))))
    total = {training: experiment.cfg(training).SOLVER.MAX_ITER for training in asked}
    done = {t: experiment.step(t) if t in waiting else total[t] for t in asked}
    running: dict[Training, subprocess.Popen] = {}
    failed: list[Training] = []
    steps = {"total": sum(total.values()), "initial": sum(done.values()), "unit": "step", "smoothing": 0}
    steps["mininterval"] = 0.1 if sys.stderr.isatty() else FILE_SECONDS
    with tqdm(desc=f"{len(asked)} trainings", **steps) as bar:
        try:
            while waiting or running:
                while len(running) < jobs and (training := _next_ready(waiting, trained)):
                    waiting.remove(training)
                    running[training] = _start(experiment, training, threads, lock)
                if not running:
                    failed += waiting  # the trainings that these start from have failed
                    break
                bar.set_postfix_str(", ".join(map(str, running)), refresh=False)
                time.sleep(POLL_SECONDS)
                for training in [t for t, process in running.items() if process.poll() is not None]:
                    if error := _finish(experiment, training, running.pop(training)):
                        failed.append(training)
                        tqdm.write(error)
                    else:
                        trained.add(training)
                    done[training] = total[training]  # no steps are left, also if it failed
                done |= {training: experiment.step(training) for training in running}
                bar.update(sum(done.values()) - bar.n)
        finally:
            _end(running.values())
    if failed:
        names = ", ".join(map(str, failed))
        raise UserError(f"{len(failed)} of {len(asked)} trainings have failed: {names}.")


def _next_ready(waiting: Sequence[Training], trained: Collection[Training]) -> Training | None:
    """The first training that needs no weights, or whose weights are trained."""
    return next((each for each in waiting if each.start is None or each.start in trained), None)


def _start(experiment: Experiment, training: Training, threads: int, lock: IO[str]) -> subprocess.Popen:
    """Start or resume a training, with its output appended to console.log in its folder."""
    folder, config = experiment.folder(training), training.arm.config_file
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(TRAIN_NET), "--config-file", config, "--resume"]
    variables = {"OMP_NUM_THREADS": str(threads), "GLIBC_TUNABLES": _MEMORY} | os.environ
    with (folder / "console.log").open("a") as log:
        return subprocess.Popen(
            [*command, *experiment.options(training)],
            env=variables | {"DETECTRON2_DATASETS": str(experiment.datasets)},
            stdout=log,
            stderr=log,
            pass_fds=[lock.fileno()],
            start_new_session=True,  # Ctrl-C reaches it once, through `_end`
            preexec_fn=partial(_prctl_pr_set_pdeathsig, signal.SIGTERM),  # when this process is killed
        )


def _finish(experiment: Experiment, training: Training, process: subprocess.Popen) -> str:
    """Delete the checkpoints of a finished training but the last; the error of a failed one."""
    folder = experiment.folder(training)
    if process.returncode:
        log = (folder / "console.log").read_text(errors="replace")
        last = ([""] + [line for line in log.splitlines() if line.strip()])[-1]
        return f"{training} ended with exit code {process.returncode}: {last} ({folder}/console.log)"
    try:
        if not read_run(folder).finished:
            return f"{training} ended before it was finished ({folder}/console.log)"
    except UserError as error:
        return str(error)
    for checkpoint in folder.glob("model_[0-9]*.pth"):
        checkpoint.unlink()
    return ""


def _end(processes: Collection[subprocess.Popen]) -> None:
    """Interrupt trainings, and wait until they have written their checkpoints."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
