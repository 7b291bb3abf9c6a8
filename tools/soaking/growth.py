"""A training without end, with evaluations and checkpoints, whose memory and open files are watched."""

import signal
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from nl_detectron.errors import UserError

from .command import start_train_net

# An evaluation and a checkpoint every so many steps.
STEPS = "SOLVER.MAX_ITER 1000000 SOLVER.CHECKPOINT_PERIOD 25 TEST.EVAL_PERIOD 25".split()


@dataclass
class Sample:
    """Of the main process, at a moment in seconds of time.monotonic()."""

    moment: float
    bytes: int
    files: int


class EndlessTraining:
    """A context in which the training runs; `sample` looks at it.

    Memory and files grew if their median over the last third of the time is above that over the middle
    third by more than the noise: how far the medians of the ten parts of the middle third lie apart. The
    first third is for warming up.
    """

    def __init__(self, folder: Path) -> None:
        self._datasets, self._folder = folder / "datasets", folder / "endless" / "training"
        self.samples: list[Sample] = []

    def __str__(self) -> str:
        last = self.samples[-1] if self.samples else Sample(0, 0, 0)
        return f"{last.bytes / 1e6:.0f} MB, {last.files} files"

    def __enter__(self) -> None:
        self._process: subprocess.Popen = start_train_net(self._datasets, self._folder, *STEPS)
        self._watched = psutil.Process(self._process.pid)

    def __exit__(self, *exception: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self.exit_code = self._process.wait()

    def sample(self) -> None:
        """Look at the process, and remove all checkpoints but the last two: the disk is not watched."""
        if self._process.poll() is not None:
            raise UserError(f"the endless training ended: see {self._folder.with_suffix('.log')}.")
        checkpoints = sorted(self._folder.glob("model_*.pth"))
        for path in checkpoints[:-2]:
            path.unlink()
        if checkpoints:  # it has started
            memory, files = self._watched.memory_info().rss, self._watched.num_fds()
            self.samples.append(Sample(time.monotonic(), memory, files))

    def results(self) -> dict[str, float]:
        third = len(self.samples) // 3
        results = {"samples": len(self.samples), "exit code after Ctrl-C": self.exit_code}
        for name, unit in (("MB", 1e6), ("files", 1)):
            values = [(sample.bytes if name == "MB" else sample.files) / unit for sample in self.samples]
            middle, last = values[third : 2 * third], values[2 * third :]
            parts = [middle[k * third // 10 : (k + 1) * third // 10] for k in range(10)]
            medians = [statistics.median(part) for part in parts]
            results[f"{name}, middle third"] = round(statistics.median(middle), 1)
            results[f"{name}, last third"] = round(statistics.median(last), 1)
            results[f"{name}, noise"] = round(max(medians) - min(medians), 1)
        return results

    def is_well(self) -> bool:
        results = self.results()
        return self.exit_code == 130 and all(
            results[f"{name}, last third"] - results[f"{name}, middle third"] <= results[f"{name}, noise"]
            for name in ("MB", "files")
        )
