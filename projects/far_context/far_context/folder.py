"""The output folder of an experiment: its pictures, its trainings, and which of them are finished."""

import fcntl
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from detectron2.config import CfgNode

from nl_detectron.config import get_cfg
from nl_detectron.engine import Run, flat_pairs, merge_options, read_run
from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

from .matrix import ALL, Training, trainings
from .pictures import MODES, register_pictures, write_pictures

_RECORD = "experiment.json"
_RESERVED = ("MODEL.NON_LOCAL.", "MODEL.BACKBONE.", "MODEL.ROI_KEYPOINT_HEAD.NAME", "MODEL.WEIGHTS")
_RESERVED += ("DATASETS.", "SEED", "OUTPUT_DIR")  # keys that the matrix sets


@dataclass(frozen=True)
class Experiment:
    """What all trainings of an experiment share.

    Attributes:
        output: the folder.
        train, val: the number of far pictures, and of near ones.
        keys: config keys and their values.
        layout: of the pictures, a key of `pictures.LAYOUTS`.
    """

    output: Path
    train: int
    val: int
    keys: tuple[str, ...] = ()
    layout: str = "square"

    @property
    def datasets(self) -> Path:
        return self.output / "datasets"

    def folder(self, training: Training) -> Path:
        return self.output / training.arm.path / f"seed_{training.seed}"

    def options(self, training: Training) -> list[str]:
        """The keys that a training has on top of its config file, and their values."""
        options = [*training.arm.keys, *self.keys, "SEED", str(training.seed)]
        if training.start:
            options += ["MODEL.WEIGHTS", str(self.folder(training.start) / "model_final.pth")]
        return [*options, "OUTPUT_DIR", str(self.folder(training))]

    def cfg(self, training: Training) -> CfgNode:
        cfg = get_cfg()
        cfg.merge_from_file(training.arm.config_file)
        merge_options(cfg, self.options(training))
        return cfg

    def step(self, training: Training) -> int:
        """The last iteration that a training has recorded, 0 if it has recorded none."""
        with suppress(OSError, IndexError, ValueError):  # no metrics yet, or a line that is being written
            metrics = (self.folder(training) / "metrics.json").read_text()
            return json.loads(metrics.splitlines()[-1])["iteration"]
        return 0

    def finished(self, training: Training) -> Run | None:
        """The run of a finished training, None for any other.

        Raises:
            UserError: if its folder holds a training with another config or other pictures, or a damaged one.
        """
        folder = self.folder(training)
        if not all((folder / name).is_file() for name in ("run.json", "metrics.json", "model_final.pth")):
            return None
        run = read_run(folder)
        if not run.finished:
            return None
        as_trained = replace(self, output=Path(run.cfg.OUTPUT_DIR).parents[2])  # it may be moved
        found, declared = dict(flat_pairs(run.cfg)), dict(flat_pairs(as_trained.cfg(training)))
        for key in ("MODEL.DEVICE", "MODEL.CLASS_NAMES", "MODEL.KEYPOINT_NAMES"):
            declared[key] = found[key]  # the device may differ within an experiment; trainings fill in names
        others = [key for key in declared if json.dumps(found.get(key)) != json.dumps(declared[key])]
        sizes = {name: self.train for name in run.cfg.DATASETS.TRAIN}
        if run.images != sizes | {name: self.val for name in run.cfg.DATASETS.TEST}:
            others.append("the number of images")
        if others:
            differences = ", ".join(others)
            raise UserError(
                f"{run.folder} holds another training than {training}: it differs in {differences}."
            )
        return run


def check_keys(experiment: Experiment, asked: Sequence[Training]) -> None:
    """Refuse keys that would replace what an arm is named for."""
    for training in asked:
        if both := {*training.arm.keys[::2]} & {*experiment.keys[::2]}:
            raise UserError(f"{min(both)} is set by {training.arm.path}. Leave out the key, or the arm.")


def check_record(experiment: Experiment) -> str:
    """The record of an experiment; a UserError if its folder holds another one."""
    what = {"train": experiment.train, "val": experiment.val, "keys": experiment.keys}
    what |= {"layout": experiment.layout} if experiment.layout != "square" else {}  # earlier records lack it
    record, text = experiment.output / _RECORD, json.dumps(what)
    if record.exists() and (held := record.read_text()) != text:
        raise UserError(
            f"--output {experiment.output} holds another experiment, {held}, not {text}. Name another folder."
        )
    return text


def set_up(experiment: Experiment, kinds: Iterable[str] = ("one",)) -> IO[str]:
    """Make the folder and its pictures, unless they are there already.

    Args:
        kinds: of the pictures that are needed.

    Returns:
        A lock on the folder, which processes that inherit the file hold too.

    Raises:
        UserError: for a bad key, or if the folder holds another experiment or is in use.
    """
    for key in experiment.keys[::2]:
        if key.startswith(_RESERVED):
            raise UserError(f"{key} is set by the arms of the matrix. Leave it out.")
    experiment.cfg(trainings()[0])  # refuses other bad keys
    output, record = experiment.output, check_record(experiment)
    output.mkdir(parents=True, exist_ok=True)
    lock = (output / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"--output {output} is in use: trainings are running in it. Wait for them.") from None
    for kind in kinds:
        draw_pictures(experiment, kind)
    with atomic_write(output / _RECORD) as unfinished:
        unfinished.write_text(record)
    return lock


def draw_pictures(experiment: Experiment, kind: str) -> None:
    """Draw the far and near pictures of a kind, unless they are there already."""
    counts = {"train": experiment.train, "val": experiment.val}
    for mode in MODES:
        write_pictures(experiment.datasets, mode, kind=kind, **counts, layout=experiment.layout)


def read_experiment(output: Path) -> Experiment:
    """The experiment in a folder. Its pictures are registered.

    Raises:
        UserError: if the folder holds none.
    """
    try:
        record = json.loads((output / _RECORD).read_text())
    except FileNotFoundError:
        raise UserError(f"--output {output} holds no experiment: it has no {_RECORD}.") from None
    record |= {"keys": tuple(record["keys"])}
    experiment = Experiment(output, **record)
    register_pictures(experiment.datasets)
    return experiment


def read_runs(experiment: Experiment) -> list[tuple[Training, Run]]:
    """The finished trainings.

    Raises:
        UserError: if a folder holds another training.
    """
    return [(training, run) for training in ALL if (run := experiment.finished(training))]
