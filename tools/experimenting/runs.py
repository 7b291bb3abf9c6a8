"""Running trainings through train_net.py, several at a time; what is finished is not trained again."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from nl_detectron.engine.merging import merge_options
from nl_detectron.errors import ArgumentError, UserError
from nl_detectron.files import written_whole
from nl_detectron.results import Run, read_run

from .matrix import Training

TRAIN_NET = Path(__file__).resolve().parents[2] / "train_net.py"
END_SECONDS = 120  # that trainings get to write a checkpoint


def finished(training: Training, output: Path) -> Run | None:
    """What a training has left; None if it is not at its end."""
    try:
        return read_run(output / training.folder)
    except UserError:
        return None


def keep_keys(output: Path, keys: Sequence[str]) -> None:
    """Note the keys of the config that the trainings of a folder have in common.

    Raises:
        ArgumentError: if the folder has trainings with others.
    """
    path, text = output / "keys.json", json.dumps([*keys])
    if path.exists() and path.read_text() != text:
        rule = f"a folder whose trainings have the same keys of the config, {text}"
        raise ArgumentError("--output", rule, path.read_text(), "Name another folder, or give its keys.")
    output.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as unfinished:
        unfinished.write_text(text)


def run_all(asked: Sequence[Training], output: Path, datasets: Path, jobs: int, keys: Sequence[str]) -> None:
    """Run what is not finished, `jobs` at a time, with a bar of all their steps.

    Args:
        asked: in this order.
        output: the folder of the experiment.
        datasets: where the far and near pictures are.
        keys: of the config, for all trainings.

    Raises:
        UserError: if a training fails; the others that are running then write a checkpoint and end.
    """
    steps = {training: _steps(training, keys) for training in asked}
    waiting = [training for training in asked if not finished(training, output)]
    running: dict[Training, subprocess.Popen] = {}
    total, left = sum(steps.values()), sum(steps[t] - _step(output / t.folder) for t in waiting)
    with tqdm(
        total=total, initial=total - left, unit="step", desc=f"{len(asked)} trainings", smoothing=0
    ) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    training = waiting.pop(0)
                    running[training] = _start(training, output, datasets, jobs, keys)
                bar.set_postfix_str(", ".join(str(t.folder) for t in running), refresh=False)
                time.sleep(1)
                for training in [t for t, process in running.items() if process.poll() is not None]:
                    _check(training, running.pop(training), output)
                left = sum(steps[t] - _step(output / t.folder) for t in (*waiting, *running))
                bar.update(total - left - bar.n)
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.wait(END_SECONDS)


def _steps(training: Training, keys: Sequence[str]) -> int:
    cfg = training.arm.cfg()
    merge_options(cfg, keys)
    return cfg.SOLVER.MAX_ITER


def _start(
    training: Training, output: Path, datasets: Path, jobs: int, keys: Sequence[str]
) -> subprocess.Popen:
    """Start a training, or resume it; what it prints is added to console.log in its folder."""
    folder, arm = output / training.folder, training.arm
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-W", "ignore", str(TRAIN_NET), "--config-file", arm.config_file, "--resume"]
    command += [*arm.keys, *keys, "SEED", str(training.seed), "OUTPUT_DIR", str(folder)]
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    environment = {"OMP_NUM_THREADS": threads, **os.environ, "DETECTRON2_DATASETS": str(datasets)}
    with (folder / "console.log").open("a") as log:
        # In a session of its own, so that Ctrl-C reaches it once, through us.
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def _check(training: Training, process: subprocess.Popen, output: Path) -> None:
    """Refuse a training that has ended before its end, with the last words of it."""
    folder = output / training.folder
    if process.returncode == 0:
        read_run(folder)
        return
    said = (folder / "console.log").read_text(errors="replace").split("\n")
    last = next((line for line in reversed(said) if line.strip()), "")
    raise UserError(
        f"{folder} must be trained to its end; it has ended with exit code {process.returncode}: {last}"
    )


def _step(folder: Path) -> int:
    """How far a training is."""
    with suppress(OSError, IndexError, ValueError):  # there is nothing yet, or it is writing it
        return json.loads((folder / "metrics.json").read_text().splitlines()[-1])["iteration"]
    return 0
