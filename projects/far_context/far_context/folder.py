"""The folder of an experiment: what all its trainings have in common, and what is finished of them."""

import fcntl
import json
import os.path
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from detectron2.config import CfgNode

from nl_detectron.data import dataset_name, register_shapes, write_shapes
from nl_detectron.engine.merging import flat_pairs, merge_options
from nl_detectron.errors import ArgumentError, UserError
from nl_detectron.files import written_whole
from nl_detectron.results import Run, read_run

from .matrix import ARMS, Arm, Training, trainings

SIZE = 256  # of the pictures, as in the configs
_RECORD = "experiment.json"
_OWN = (
    "MODEL.NON_LOCAL.",
    "MODEL.BACKBONE.",
    "MODEL.ROI_KEYPOINT_HEAD.NAME",
    "MODEL.WEIGHTS",
    "DATASETS.",
    "SEED",
    "OUTPUT_DIR",
)
_FREE = ("OUTPUT_DIR", "MODEL.DEVICE")  # what may differ within an experiment


@dataclass(frozen=True)
class Experiment:
    """
    Attributes:
        output: the folder.
        train, val: the number of pictures of each kind, far and near.
        keys: of the config, and their values, for all trainings.
    """

    output: Path
    train: int
    val: int
    keys: Sequence[str] = ()

    @property
    def datasets(self) -> Path:
        return self.output / "datasets"

    def folder(self, training: Training) -> Path:
        return self.output / training.arm.path / f"seed_{training.seed}"

    def weights(self, training: Training) -> Path:
        return self.folder(training) / "model_final.pth"

    def cfg(self, arm: Arm) -> CfgNode:
        """The config of an arm in this experiment."""
        cfg = arm.cfg()
        merge_options(cfg, self.keys)
        return cfg

    def own_keys(self, training: Training) -> list[str]:
        """The keys of the config, and their values, that are of one training."""
        weights = ["MODEL.WEIGHTS", str(self.weights(training.start))] if training.start else []
        return [*weights, "SEED", str(training.seed), "OUTPUT_DIR", str(self.folder(training))]

    def step(self, training: Training) -> int:
        """How far a training is, finished or not."""
        with suppress(OSError, IndexError, ValueError):  # there is nothing yet, or it is writing it
            metrics = (self.folder(training) / "metrics.json").read_text()
            return json.loads(metrics.splitlines()[-1])["iteration"]
        return 0

    def finished(self, training: Training) -> Run | None:
        """What a training has left; None if it is not at its end.

        Raises:
            UserError: if what is in its folder is another training, naming the keys.
        """
        try:
            run = read_run(self.folder(training))
        except UserError:
            return None
        found, declared = dict(flat_pairs(run.cfg)), dict(flat_pairs(self.cfg(training.arm)))
        declared |= {"SEED": training.seed} | {key: found[key] for key in _FREE}
        if training.start:  # relative, as the experiment may have been moved
            weights = os.path.relpath(self.weights(training.start), self.folder(training))
            declared["MODEL.WEIGHTS"] = os.path.normpath(os.path.join(found["OUTPUT_DIR"], weights))
        others = [key for key in declared if json.dumps(found.get(key)) != json.dumps(declared[key])]
        if run.images != tuple(sorted({self.train, self.val})):
            others.append("number of images")
        if others:
            raise UserError(f"{run.folder} must be {training}; it has another {', another '.join(others)}.")
        return run


def check_keys(keys: Sequence[str]) -> None:
    """Refuse keys that are none, and those by which the arms differ.

    Raises:
        UserError: naming the key.
    """
    for key in keys[::2]:
        if key.startswith(_OWN):
            raise ArgumentError(key, "left to the arms of the matrix", key, "Leave it out.")
    for arm in ARMS:
        merge_options(arm.cfg(), keys)


def keep(experiment: Experiment) -> IO[str]:
    """Make the folder, with its pictures, or take the one that there is.

    Returns:
        A lock on the folder, which whoever inherits it holds too.

    Raises:
        UserError: if there is another experiment in it, or somebody is at work in it.
    """
    check_keys(experiment.keys)
    path, text = experiment.output / _RECORD, json.dumps(asdict(experiment) | {"output": None})
    if path.exists() and path.read_text() != text:
        raise ArgumentError(
            "--output", f"a folder of the same pictures and keys, {text}", path.read_text(), "Name another."
        )
    experiment.output.mkdir(parents=True, exist_ok=True)
    lock = (experiment.output / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"--output {experiment.output}: trainings are running in it. Wait for them."
        ) from None
    for mode in ("far", "near"):
        folder = experiment.datasets / dataset_name(mode)
        write_shapes(folder, train=experiment.train, val=experiment.val, size=SIZE, mode=mode)
    with written_whole(path) as unfinished:
        unfinished.write_text(text)
    return lock


def kept(output: Path) -> Experiment:
    """The experiment in a folder, with its pictures registered.

    Raises:
        UserError: if there is none.
    """
    try:
        read = json.loads((output / _RECORD).read_text())
    except FileNotFoundError:
        raise UserError(f"--output must be the folder of an experiment; {output} has no {_RECORD}.") from None
    register_shapes(output / "datasets")
    return Experiment(**read | {"output": output})


def read_all(experiment: Experiment) -> dict[Arm, dict[int, Run]]:
    """The finished trainings by arm and seed, in the order of the matrix.

    Raises:
        UserError: if a folder has another training, or if nothing is finished.
    """
    runs: dict[Arm, dict[int, Run]] = {}
    for arm in ARMS:
        for training in trainings([arm.path]):
            if run := experiment.finished(training):
                runs.setdefault(arm, {})[training.seed] = run
    if not runs:
        raise UserError(f"--output must have finished trainings; {experiment.output} has none.")
    return runs
