"""The report's tables: the scores of arms, beside the first arm of their group, and where blocks attend."""

import subprocess
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

import numpy as np
from tabulate import tabulate

from nl_detectron.engine import Run
from nl_detectron.inspect import Counts, count_by_stage, total

from .evaluation import Evaluation, dataset_of
from .folder import Experiment, Runs
from .matrix import PROJECT, SEEDS, Arm, Training
from .pictures import MODES

SCORES = {  # the metrics shown for a task, and their names; the first one needs the disc
    "mask": {"bbox/AP": "box AP", "segm/AP": "mask AP"},
    "keypoint": {"keypoints/AP": "keypoint AP", "bbox/AP": "box AP"},
}
LEARNT = 90  # the AP50 above which a model has learnt the far pictures

Evaluated = dict[int, tuple[Run, Evaluation]]  # the trainings of an arm, by seed


def mean_and_deviation(values: Sequence[float], form: str = ".1f") -> str:
    """The mean, and the sample standard deviation of several values: "86.2 ± 1.2"."""
    mean = f"{np.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):{form.removeprefix('+')}}"


def curve_of(run: Run, key: str) -> dict[int, float]:
    """A metric by the number of updates before it was measured.

    Evaluations, whose keys have a "/", are recorded under the iteration before, the last one under MAX_ITER.
    """
    shift, last = int("/" in key), run.cfg.SOLVER.MAX_ITER
    recorded = [(step, metrics[key]) for step, metrics in sorted(run.history.items()) if key in metrics]
    return {min(step + shift, last): value for step, value in recorded}


def group_table(experiment: Experiment, group: Sequence[Arm], arms: dict[Arm, Evaluated]) -> str:
    """A row for each arm of a group, with its differences to the first arm in brackets."""
    first, rows = group[0], []
    first_cost = count(experiment, first)
    for arm in group:
        done = arms.get(arm, {})
        row = {"arm": arm.name, "seeds": ", ".join(map(str, done)) or "not trained"}
        if done:
            row["code"] = ", ".join(sorted({code for run, _ in done.values() for code in run.code}))
            row |= _decisions(arm, done) | _scores(arm, done, arms.get(first, {}) if arm != first else {})
            row |= _cost(count(experiment, arm), first_cost)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _decisions(arm: Arm, done: Evaluated) -> dict[str, str]:
    evaluations = [evaluation for _, evaluation in done.values()]
    row = {"far: right, %": mean_and_deviation([each.right_share() for each in evaluations])}
    if any(evaluations[0].differ):
        shares = [each.right_share_where_they_differ() for each in evaluations]
        row["far: right where the two differ, %"] = mean_and_deviation(shares)
    key = f"{next(iter(SCORES[arm.task]))}50"
    return row | {
        "far: told apart, %": mean_and_deviation([each.told_apart_share() for each in evaluations]),
        f"far: AP50 > {LEARNT} after": ", ".join(learnt_after(run, key) for run, _ in done.values()),
    }


def learnt_after(run: Run, key: str) -> str:
    """The step from which on all evaluations of a score on far pictures are above LEARNT; "-" if none is."""
    after = "-"
    for step, value in reversed(curve_of(run, f"{dataset_of(run, 'far')}/{key}").items()):
        if not value > LEARNT:  # nan included
            break
        after = str(step)
    return after


def _scores(arm: Arm, done: Evaluated, reference: Evaluated) -> dict[str, str]:
    """Each score, with the mean of its differences to the reference of the same seed in brackets."""
    cells = {}
    for mode, (key, name) in [(mode, score) for mode in MODES for score in SCORES[arm.task].items()]:
        values, others = (
            {seed: _last(run, f"{dataset_of(run, mode)}/{key}") for seed, (run, _) in each.items()}
            for each in (done, reference)
        )
        cells[f"{mode}: {name}"] = mean_and_deviation([*values.values()])
        if paired := [values[seed] - others[seed] for seed in values if seed in others]:
            cells[f"{mode}: {name}"] += f" ({mean_and_deviation(paired, '+.1f')})"
    return cells


def _last(run: Run, key: str) -> float:
    return run.history[run.cfg.SOLVER.MAX_ITER][key]


def count(experiment: Experiment, arm: Arm) -> Counts:
    """The cost of a model for one picture, with as many regions as it may have."""
    cfg = experiment.cfg(Training(arm, SEEDS[0]))
    regions = (cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)
    return total(count_by_stage(cfg, *[cfg.INPUT.MIN_SIZE_TEST] * 2, *regions).values())


def _cost(cost: Counts, reference: Counts) -> dict[str, str]:
    operations, parameters = f"{cost.multiply_adds / 1e9:.2f} G", f"{cost.parameters / 1e6:.2f} M"
    if cost != reference:
        operations = f"{cost.multiply_adds / reference.multiply_adds - 1:+.1%}"
        parameters = f"{cost.parameters / reference.parameters - 1:+.1%}"
    return {"multiply-adds": operations, "parameters": parameters}


def attention_table(arms: dict[Arm, Evaluated]) -> str:
    """A row for each block in a backbone: means over the figures, for each seed."""
    rows = []
    for arm, done in arms.items():
        evaluations = [evaluation for _, evaluation in done.values()]
        for block in evaluations[0].attention:
            row = {"task": arm.task, "arm": arm.name, "block": block, "seeds": ", ".join(map(str, done))}
            means = [_means(evaluation, block) for evaluation in evaluations]
            row |= {column: ", ".join(f"{each[column]:.0f}" for each in means) for column in means[0]}
            dependence = [f"{np.mean(each.dependence[block]):.2f}" for each in evaluations]
            rows.append(row | {"query dependence": ", ".join(dependence)})
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _means(evaluation: Evaluation, block: str) -> dict[str, float]:
    """The weight on the disc in per cent, by column."""
    figures, columns = 100 * np.array(evaluation.attention[block]), {}
    for color, red in {"red": True, "blue": False}.items():
        _, weight, everywhere, _ = figures[(figures[:, 0] > 0) == red].mean(0)
        columns |= {f"on a {color} disc, %": weight, f"{color}: from everywhere": everywhere}
    return columns | {"if all were alike": figures[:, 3].mean()}


def trainings_table(runs: Runs) -> str:
    """A row for each finished training: with which code, and how long it took."""
    rows = []
    for arm, by_seed in runs.items():
        for seed, run in by_seed.items():
            row = {"training": arm.path, "seed": seed, "code": ", ".join(run.code)}
            row["operation"] = ", ".join(sorted({operation_in(code) for code in run.code}))
            row["steps"] = run.cfg.SOLVER.MAX_ITER
            row["time"] = "-" if run.seconds is None else str(timedelta(seconds=run.seconds))
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


@cache
def operation_in(code: str) -> str:
    """What git calls the content of nl_detectron/layers in a revision: the same if no line of it differs."""
    command = ["git", "-C", str(PROJECT), "rev-parse", "--short=12", f"{code}:nl_detectron/layers"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else "-"
