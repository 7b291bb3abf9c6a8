"""`run.json`, in which a training records what it is: written by the trainer, read by tools and projects."""

import json
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import detectron2
import torch
import yaml
from detectron2.config import CfgNode

import nl_detectron
from nl_detectron.config import get_cfg
from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write
from nl_detectron_cli.arguments import as_typed

FILE, METRICS = "run.json", "metrics.json"
_CHECKPOINT = re.compile(r"model_(\d{7,}|final|best)\.pth")


class RunRecord:
    """The record of a training in its output folder, to which each command that trains adds an entry."""

    def __init__(self, cfg: CfgNode, processes: int, images: Mapping[str, int]) -> None:
        self._path = Path(cfg.OUTPUT_DIR) / FILE
        versions = {"nl_detectron": nl_detectron.__version__, "detectron2": detectron2.__version__}
        versions |= {"torch": torch.__version__, "python": platform.python_version()}
        self._content = {"config": cfg.dump(), "seed": cfg.SEED, "processes": processes, "images": {**images}}
        self._content |= {"versions": versions, "commands": [], "finished": False}

    def start(self, iteration: int, changed: Sequence[str]) -> None:
        """Record a command that trains from `iteration` on, and what has changed since the one before."""
        metrics, start = self._path.with_name(METRICS), 0
        if not iteration and metrics.is_file():
            start = metrics.stat().st_size  # what is there is an earlier training's
        self._content["metrics_start"] = start
        if iteration and self._path.is_file():
            before = json.loads(self._path.read_text())
            self._content |= {key: before[key] for key in ("commands", "metrics_start") if key in before}
        command = {"code": describe_code(), "start": iteration, "seconds": None, "changed": [*changed]}
        self._content["commands"].append(command)
        self._began = time.monotonic()
        self._write()

    def stop(self, finished: bool) -> None:
        """Record the end of the command, and whether the training is finished and evaluated."""
        self._content["commands"][-1]["seconds"] = round(time.monotonic() - self._began)
        self._content["finished"] = finished
        self._write()

    def _write(self) -> None:
        with atomic_write(self._path) as unfinished:
            unfinished.write_text(json.dumps(self._content, indent=1))


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints that trainings write, by iteration; the final and the best one come last."""
    return sorted(path for path in folder.glob("model_*.pth") if _CHECKPOINT.fullmatch(path.name))


def remove_training(folder: Path) -> None:
    """Delete the checkpoints, metrics and record of a training from its output folder."""
    files = [folder / name for name in ("last_checkpoint", FILE, METRICS)]
    for path in [*checkpoints_in(folder), *folder.glob("events.out.tfevents.*"), *files]:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Run:
    """A training as its output folder shows it."""

    folder: Path
    cfg: CfgNode  # with SOLVER as it was scaled to the processes
    processes: int
    images: dict[str, int]  # of each data set
    code: tuple[str, ...]  # what it was trained with, as `describe_code` says
    seconds: int | None  # in total; None if a command was killed or ended in an error
    finished: bool  # whether it is at MAX_ITER and evaluated there
    history: dict[int, dict[str, float]]  # the metrics by iteration, the last evaluation's under MAX_ITER


def read_run(folder: Path) -> Run:
    """Read an output folder; a UserError for one that is damaged, or was resumed with other settings."""
    for name in (FILE, METRICS):
        if not (folder / name).is_file():
            training = as_typed("train_net.py")
            raise UserError(f"{folder} is not an output folder of {training}: it has no {name}.")
    try:
        record = json.loads((folder / FILE).read_text())
        cfg, commands = get_cfg(), record["commands"]
        cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(record["config"])))
        seconds = [command["seconds"] for command in commands]
        run = Run(
            folder,
            cfg,
            record["processes"],
            record["images"],
            tuple(dict.fromkeys(command["code"] for command in commands)),
            None if None in seconds else sum(seconds),
            record["finished"],
            _read_metrics(folder / METRICS, record.get("metrics_start", 0)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"The record of {folder} is damaged, or of another Detectron2: {reason}") from error
    if changed := [text for command in commands for text in command["changed"]]:
        raise UserError(f"{folder} was resumed with other settings: {'; '.join(changed)}.")
    return run


def is_evaluated(folder: Path, iteration: int) -> bool:
    """Whether the metrics of a training have an AP after this iteration. Detectron2 counts the last one as
    one more."""
    return any(
        metrics["iteration"] in (iteration, iteration + 1) and any("/AP" in key for key in metrics)
        for metrics in _metrics_in(folder / METRICS)
    )


def describe_code() -> str:
    """The git revision of nl_detectron in a checkout, else its version."""
    file = Path(nl_detectron.__file__)
    git = ["git", "-C", str(file.parent)]
    try:  # not the revision of a repository that an environment lies in
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        command = [*git, "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"nl_detectron {nl_detectron.__version__}"


def _read_metrics(path: Path, start: int) -> dict[int, dict[str, float]]:
    """By iteration, from byte `start` on; what a resumed training wrote again counts."""
    history: dict[int, dict[str, float]] = {}
    for metrics in _metrics_in(path, start):
        history.setdefault(metrics["iteration"], {}).update(metrics)
    return history


def _metrics_in(path: Path, start: int = 0) -> Iterator[dict[str, float]]:
    """From byte `start` on. Lines whose writing was cut off, as by a kill or a full disk, are skipped."""
    for line in path.read_bytes()[start:].splitlines() if path.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)
