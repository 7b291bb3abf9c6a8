"""What is kept of finished trainings, so that tables outlive weights: results.jsonl, a line for each."""

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from tqdm import tqdm

from nl_detectron.config import get_cfg
from nl_detectron.engine import Run, flat_pairs
from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

from .evaluation import Evaluation, dataset_of, evaluate
from .folder import Experiment, read_runs
from .matrix import ALL, PROJECT, Arm, Training
from .pictures import MODES

SCORES = {  # the metrics shown for a task, and their names; the first one needs the disc
    "mask": {"bbox/AP": "box AP", "segm/AP": "mask AP"},
    "keypoint": {"keypoints/AP": "keypoint AP", "bbox/AP": "box AP"},
}
LOSSES = {"mask": "loss_cls", "keypoint": "loss_keypoint"}
_DIGITS = 4

Curve = dict[int, float]  # by the number of updates before


@dataclass(frozen=True)
class Result:
    """A finished training.

    Attributes:
        arm, seed: which one.
        config: of its keys, `digest`.
        code: the revisions that it was trained with.
        operation: what git calls the content of nl_detectron/layers in them: the same if no line differs.
        seconds: in total; None if a command was killed.
        shares: percentages, by the name of the column.
        attention: of each block in the backbone, means over the figures, by the name of the column.
        curves: the loss, and "far/bbox/AP" and the like.
    """

    arm: str
    seed: int
    config: str
    code: list[str]
    operation: list[str]
    seconds: int | None
    shares: dict[str, float]
    attention: dict[str, dict[str, float]]
    curves: dict[str, Curve]

    def last(self, key: str) -> float:
        return [*self.curves[key].values()][-1]


Results = dict[Training, Result]  # in the order of `matrix.ARMS` and of their seeds


def by_seed(results: Results, arm: Arm) -> dict[int, Result]:
    """The results of an arm."""
    return {training.seed: result for training, result in results.items() if training.arm == arm}


def read_results(experiment: Experiment, file: Path) -> Results:
    """The results in a file, none if it does not exist.

    Raises:
        UserError: for a line that is damaged, or of a training that the matrix does not declare so.
    """
    declared, results = {(each.arm.path, each.seed): each for each in ALL}, {}
    for number, line in enumerate(file.read_text().splitlines() if file.exists() else (), start=1):
        try:
            content = json.loads(line)
            curves = {key: {int(k): v for k, v in curve.items()} for key, curve in content["curves"].items()}
            result = Result(**content | {"curves": curves})
            training = declared[result.arm, result.seed]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{file}, line {number} is no result of this matrix: {error!r}.") from error
        if result.config != digest(experiment, training):
            raise UserError(
                f"{file}, line {number}: {training} was trained with other keys or pictures than it is "
                "declared with. Delete the line, and train it again."
            )
        results[training] = result
    return _in_order(results)


def update_results(experiment: Experiment, file: Path) -> Results:
    """Add the finished trainings of an experiment to a file, with what they make of the far pictures.

    A training that is in the file stays as it is, also if it was trained again, for others to start from.
    """
    kept = read_results(experiment, file)
    new = [(training, run) for training, run in read_runs(experiment) if training not in kept]
    for training, run in tqdm(new, desc="looking at trained models", unit="model", disable=not new):
        result = result_of(experiment, training, run, evaluate(run))
        with _locked(file.resolve().parent):  # other experiments may have the same file
            kept = _in_order(read_results(experiment, file) | {training: result})
            with atomic_write(file) as unfinished:
                unfinished.write_text("".join(json.dumps(asdict(each)) + "\n" for each in kept.values()))
    return kept


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """While no other process holds the folder so."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _in_order(results: Results) -> Results:
    return {training: results[training] for training in ALL if training in results}


def result_of(experiment: Experiment, training: Training, run: Run, seen: Evaluation) -> Result:
    """What is kept of a finished training and of what its model makes of the far pictures."""
    return Result(
        training.arm.path,
        training.seed,
        digest(experiment, training),
        [*run.code],
        sorted({operation_in(code) for code in run.code}),
        run.seconds,
        {name: round(share, _DIGITS) for name, share in seen.shares().items()},
        {block: _rounded(columns) for block, columns in seen.attention_means().items()},
        dict(_curves(training.arm, run)),
    )


@cache
def digest(experiment: Experiment, training: Training) -> str:
    """12 hexadecimal digits of what a training is declared with: with which keys other than Detectron2's and,
    of the blocks, with all; its start; and how many pictures.
    """
    defaults = dict(flat_pairs(get_cfg()))
    declared = {
        key: value
        for key, value in flat_pairs(experiment.cfg(training))
        if (value != defaults.get(key) or key.startswith("MODEL.NON_LOCAL."))
        and key not in ("MODEL.WEIGHTS", "OUTPUT_DIR", "MODEL.DEVICE")
    }
    declared["start"] = digest(experiment, training.start) if training.start else None
    declared["images"] = experiment.train, experiment.val
    return hashlib.sha256(json.dumps(declared, sort_keys=True).encode()).hexdigest()[:12]


def _curves(arm: Arm, run: Run) -> dict[str, Curve]:
    names = {LOSSES[arm.task]: "loss"}
    scores = [*SCORES[arm.task], first_score(arm) + "50"]
    names |= {f"{dataset_of(run, mode)}/{key}": f"{mode}/{key}" for mode in MODES for key in scores}
    return {name: _rounded(curve_of(run, key)) for key, name in names.items()}


def first_score(arm: Arm) -> str:
    return next(iter(SCORES[arm.task]))


def curve_of(run: Run, key: str) -> Curve:
    """A metric by the number of updates before it was measured.

    Evaluations, whose keys have a "/", are recorded under the iteration before, the last one under MAX_ITER.
    """
    shift, last = int("/" in key), run.cfg.SOLVER.MAX_ITER
    recorded = [(step, metrics[key]) for step, metrics in sorted(run.history.items()) if key in metrics]
    return {min(step + shift, last): value for step, value in recorded}


def _rounded(values: Mapping[object, float]) -> dict[object, float]:
    return {key: round(value, _DIGITS) for key, value in values.items()}


@cache
def operation_in(code: str) -> str:
    """What git calls the content of nl_detectron/layers in a revision: "-" for an unknown one."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short=12", f"{code}:nl_detectron/layers"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else "-"
