"""Trainings that are killed at random moments, resumed, and compared with one that was not."""

import json
import random
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import torch

from nl_detectron.errors import UserError

from .command import start_train_net

STEPS = ("SOLVER.MAX_ITER", "40", "SOLVER.CHECKPOINT_PERIOD", "5")
PATIENCE = 10  # seconds in which the workers of a killed training have to end


class KilledTrainings:
    """One training after the other, each killed and resumed until it comes to its end, then evaluated.

    Attributes:
        moments: of the kills, in seconds of time.monotonic().
    """

    def __init__(self, folder: Path, seed: int) -> None:
        """Train once without a kill."""
        self._datasets, self._folder = folder / "datasets", folder / "killed" / "training"
        self._random = random.Random(seed)
        self.moments: list[float] = []
        self.trainings = self.survived = self.orphans = self._kills = 0
        began = time.monotonic()
        uninterrupted = folder / "uninterrupted" / "training"
        _wait(start_train_net(self._datasets, uninterrupted, *STEPS), uninterrupted)
        self._seconds = time.monotonic() - began
        self._expected = _outcome(uninterrupted)
        self._process: subprocess.Popen | None = None

    def __str__(self) -> str:
        return f"{len(self.moments)} kills, {self.trainings} trainings"

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        if self._process:
            self._process.kill()

    def advance(self, may_kill: bool = True) -> None:
        """Start, kill or finish what is due."""
        if self._process is None:
            self._process = start_train_net(self._datasets, self._folder, "--resume", *STEPS)
            self._due = time.monotonic() + self._random.uniform(0, self._seconds)
        elif self._process.poll() is not None:
            self._finish()
        elif may_kill and time.monotonic() > self._due:
            self._kill()

    def stop(self) -> None:
        """Let the training that is under way come to its end."""
        while self._process is not None or self._kills:
            self.advance(may_kill=False)
            time.sleep(0.2)

    def _kill(self) -> None:
        workers = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        self._process.wait()
        self.moments.append(time.monotonic())
        self._kills += 1
        _, left = psutil.wait_procs(workers, timeout=PATIENCE)
        self.orphans += len(left)
        self._process = None

    def _finish(self) -> None:
        """Compare what came out, evaluate it in a process of its own, and compare that too."""
        _wait(self._process, self._folder)
        evaluation, weights = self._folder.with_name("evaluation"), str(self._folder / "model_final.pth")
        arguments = ("--eval-only", "MODEL.WEIGHTS", weights)
        _wait(start_train_net(self._datasets, evaluation, *arguments), evaluation)
        outcome = {**_outcome(self._folder), "detections": _detections(evaluation)}
        try:
            torch.testing.assert_close(outcome, self._expected, rtol=0, atol=0, equal_nan=True)
            self.survived += self._kills
        except AssertionError as error:
            print(f"\na training came out differently after {self._kills} kills: {error}")
        self.trainings += 1
        self._process, self._kills = None, 0
        shutil.rmtree(self._folder.parent)

    def results(self) -> dict[str, int]:
        return {
            "kills": len(self.moments),
            "kills survived": self.survived,
            "trainings": self.trainings,
            "processes left behind": self.orphans,
        }

    def is_well(self) -> bool:
        return self.survived == len(self.moments) and not self.orphans


def _wait(process: subprocess.Popen, folder: Path) -> None:
    if process.wait():
        raise UserError(f"a run failed: see {folder.with_suffix('.log')}.")


def _outcome(folder: Path) -> dict[str, object]:
    """The last checkpoint, with the state of the optimizer and schedule, and what was detected at the end."""
    checkpoint = torch.load(folder / "model_final.pth", weights_only=True)
    del checkpoint["trainer"]["config"], checkpoint["non_local"]  # text, and other paths
    return {"checkpoint": checkpoint, "detections": _detections(folder)}


def _detections(folder: Path) -> list[list[float]]:
    found = json.loads((folder / "inference" / "coco_instances_results.json").read_text())
    return [[each["image_id"], each["category_id"], each["score"], *each["bbox"]] for each in found]
