"""Finished trainings that nobody has trained."""

import json
from collections.abc import Callable
from pathlib import Path

from far_context.evaluation import Evaluation
from far_context.folder import Experiment, read_runs
from far_context.matrix import ARMS, SEEDS, Training
from far_context.results import Results, result_of

from nl_detectron.engine import Run, read_run

Train = Callable[..., Run]
TRAINING = {f"{arm.path}/seed_{seed}": Training(arm, seed) for arm in ARMS for seed in SEEDS}  # by its place


def make_up(
    experiment: Experiment,
    place: str,
    *options: str,
    folder: Path | None = None,
    code: str = "abc",
    **scores: tuple[float, float],
) -> Run:
    """Write run.json and metrics.json of a training, and an empty file of weights.

    Args:
        place: in the output folder, like "mask/baseline/seed_1".
        options: keys of the config, and their values, that it has otherwise.
        folder: where, if not in its place.
        code: the revision that it was trained with.
        scores: far and near AP of each task. AP50 is half of it.
    """
    training = TRAINING[place]
    folder = folder or experiment.folder(training)
    folder.mkdir(parents=True)
    cfg = experiment.cfg(training)
    cfg.merge_from_list([*options])
    images = dict.fromkeys(cfg.DATASETS.TRAIN, 12) | dict.fromkeys(cfg.DATASETS.TEST, 6)
    commands = [{"code": code, "start": 0, "seconds": 1020, "changed": []}]
    record = {"config": cfg.dump(), "processes": 1, "images": images, "commands": commands, "finished": True}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "model_final.pth").touch()
    last = {"iteration": 100}
    for task, values in scores.items():
        for name, value in zip(cfg.DATASETS.TEST, reversed(values), strict=True):  # near, far
            last |= {f"{name}/{task}/AP": value, f"{name}/{task}/AP50": value / 2}
    lines = [{"iteration": 99, "loss_cls": 1.0, "loss_keypoint": 1.0}, last]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_run(folder)


def results_in(experiment: Experiment, seen: Callable[[Training], Evaluation]) -> Results:
    """What is kept of the finished trainings, with what their models are said to have seen."""
    return {
        training: result_of(experiment, training, run, seen(training))
        for training, run in read_runs(experiment)
    }
