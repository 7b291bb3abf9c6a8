"""Finished trainings, read from what train_net.py leaves in their output folders: log.txt and metrics.json.

The config is the log's: config.yaml is of the last command in the folder, which may be an evaluation.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer

from nl_detectron.config import get_cfg
from nl_detectron.errors import UserError, reported_as_user_errors

TASKS = {
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "bbox_TTA": "box TTA",
    "segm_TTA": "mask TTA",
}
SCORES = {
    f"{task}/{metric}": f"{name} {metric}"
    for task, name in TASKS.items()
    for metric in ("AP", "AP50", "AP75")
}

# Lines of the log. The first one begins each command in the folder.
_COMMAND = "Rank of current process: 0. World size: "
_PROCESSES = re.compile(r"[1-9]\d*(?=\n)")
_CONFIG = re.compile(r"Running with full config:\n(.*?)\n\[\d\d/\d\d ", re.DOTALL)
_SAVED = re.compile(r"Full config saved to (.*)\n")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CODE = re.compile(r"(nl_detectron \S+) \((?:git revision (\S+)|not a git checkout)\), SEED ")
_START = re.compile(r"Starting training from iteration (\d+)\n")
_TIME = re.compile(r"Total training time: (?:(\d+) days?, )?(\d+):(\d\d):(\d\d)")
_LOADED = re.compile(r"Loaded (\d+) images in COCO format")
_OTHERWISE = re.compile(r"This does not resume the same training: (.*)\n")
_EVALUATED = "copypaste: "


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        cfg: with SOLVER as it was scaled to the processes.
        history: the metrics that were written after each iteration, the last evaluation's under MAX_ITER.
        code: the git revisions that it was trained with, or versions where there was no checkout.
        seconds: that it took; None if it was resumed.
        images: how many the data sets have.
    """

    folder: Path
    cfg: CfgNode
    processes: int
    history: dict[int, dict[str, float]]
    code: frozenset[str]
    seconds: int | None
    images: tuple[int, ...]

    @property
    def scores(self) -> dict[str, float]:
        """AP, AP50 and AP75 of each task in per cent, at MAX_ITER, be they the best or not.

        With several test sets each key begins with the name of one, as "shapes_far_val/".
        """
        last = self.history[self.cfg.SOLVER.MAX_ITER]
        sets = self.cfg.DATASETS.TEST
        prefixes = [f"{name}/" for name in sets] if len(sets) > 1 else [""]
        keys = (prefix + key for prefix in prefixes for key in SCORES)
        return {key: last[key] for key in keys if key in last}


def read_run(folder: Path) -> Run:
    """Read an output folder.

    Raises:
        UserError: if it is none, is damaged, or the training in it is not finished.
    """
    for name in ("log.txt", "metrics.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} must be an output folder of train_net.py; it has no {name}.")
    commands = _trainings(folder / "log.txt")
    for command in commands:
        if otherwise := _OTHERWISE.search(command):
            raise UserError(f"{folder} must be one training; it was resumed as another: {otherwise[1]}.")
    last = commands[-1]
    processes = _read_processes(folder, last)
    cfg = _read_config(folder, last, processes)
    run = Run(
        folder=folder,
        cfg=cfg,
        processes=processes,
        history=_read_metrics(folder / "metrics.json"),
        code=frozenset(_code(command) for command in commands),
        seconds=_seconds(last) if len(commands) == 1 else None,
        images=tuple(sorted({int(number) for number in _LOADED.findall(last)})),
    )
    _check_finished(run, last)
    return run


def _trainings(log: Path) -> list[str]:
    """What the log says of each command that had a part in the last training.

    Where a process runs several trainings, Detectron2 writes the later ones into the first one's log too.
    """
    text = _COLOUR.sub("", log.read_text(encoding="utf-8", errors="replace"))
    folder = _SAVED.findall(text)[:1]
    commands = [
        command
        for command in text.split(_COMMAND)[1:]
        if _START.search(command) and _SAVED.findall(command) == folder
    ]
    if not commands:
        raise UserError(f"{log} must be of a training, and has none.")
    starts = [int(_START.search(command)[1]) for command in commands]
    first = max((k for k, start in enumerate(starts) if start == 0), default=0)
    return commands[first:]


def _read_processes(folder: Path, command: str) -> int:
    if number := _PROCESSES.match(command):
        return int(number[0])
    said = command.partition("\n")[0]
    raise UserError(f"{folder}/log.txt must have a number after 'World size: '; got {said!r}. It is damaged.")


def _read_config(folder: Path, command: str, processes: int) -> CfgNode:
    saved = _CONFIG.search(command)
    if not saved:
        raise UserError(f"{folder}/log.txt must have the config of the training; it is damaged.")
    cfg = get_cfg()
    with reported_as_user_errors(f"{folder}: this Detectron2 cannot read the config in log.txt"):
        cfg.merge_from_other_cfg(CfgNode.load_cfg(saved[1]))
    return DefaultTrainer.auto_scale_workers(cfg, processes)


def _read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """By iteration; what a resumed training wrote again counts."""
    history: dict[int, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            metrics = json.loads(line)
            if type(metrics["iteration"]) is not int or not {*map(type, metrics.values())} <= {int, float}:
                raise TypeError
        except (ValueError, TypeError, KeyError):
            raise UserError(
                f"{path}: line {number} must be numbers in JSON, with an iteration; it is damaged."
            ) from None
        history.setdefault(metrics["iteration"], {}).update(metrics)
    return history


def _code(command: str) -> str:
    """The revision, or the version where there is none; a script of Detectron2's says neither."""
    found = _CODE.search(command)
    return found[2] or found[1] if found else "unknown"


def _seconds(command: str) -> int | None:
    if not (time := _TIME.search(command)):
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in time.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_finished(run: Run, command: str) -> None:
    """Refuse a training that has not ended, also in a folder where another one has."""
    max_iter = run.cfg.SOLVER.MAX_ITER
    _, ended, after = command.rpartition("Total training time")
    last = run.history.get(max_iter, {})
    if ended and _EVALUATED in after and any(key.endswith("bbox/AP") for key in last):
        return
    raise UserError(
        f"{run.folder} must be trained to SOLVER.MAX_ITER {max_iter} and evaluated there; the last iteration "
        f"in metrics.json is {max(run.history, default='none')}. Continue it with train_net.py --resume."
    )
