"""The report's tables: the scores of arms, beside the first arm of their group, and where blocks attend."""

from collections.abc import Sequence
from datetime import timedelta
from functools import cache

import numpy as np
from tabulate import tabulate

from nl_detectron.inspect import Counts, count_by_stage, total

from .folder import Experiment
from .matrix import SEEDS, Arm, Training
from .pictures import MODES
from .results import SCORES, Curve, Result, Results, by_seed, first_score

LEARNT = 90  # the AP50 above which a model has learnt the far pictures


def mean_and_deviation(values: Sequence[float], form: str = ".1f") -> str:
    """The mean, and the sample standard deviation of several values: "86.2 ± 1.2"."""
    mean = f"{np.mean(values):{form}}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):{form.removeprefix('+')}}"


def group_table(experiment: Experiment, group: Sequence[Arm], results: Results) -> str:
    """A row for each arm of a group, with its differences to the first arm in brackets."""
    first, rows = group[0], []
    first_cost = count(experiment, first)
    for arm in group:
        done = by_seed(results, arm)
        row = {"arm": arm.name, "seeds": ", ".join(map(str, done)) or "not trained"}
        if done:
            reference = by_seed(results, first) if arm != first else {}
            row |= _decisions(arm, [*done.values()]) | _scores(arm, done, reference)
            row |= _cost(count(experiment, arm), first_cost)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _decisions(arm: Arm, done: Sequence[Result]) -> dict[str, str]:
    names = done[0].shares
    row = {f"far: {name}, %": ", ".join(f"{each.shares[name]:.0f}" for each in done) for name in names}
    after = [learnt_after(each.curves[f"far/{first_score(arm)}50"]) for each in done]
    return row | {f"far: AP50 > {LEARNT} after": ", ".join(after)}


def learnt_after(curve: Curve) -> str:
    """The step from which on all values are above LEARNT; "-" if none is."""
    after = "-"
    for step, value in reversed(curve.items()):
        if not value > LEARNT:  # nan included
            break
        after = str(step)
    return after


def _scores(arm: Arm, done: dict[int, Result], reference: dict[int, Result]) -> dict[str, str]:
    """Each score, with the mean of its differences to the reference of the same seed in brackets."""
    cells = {}
    for mode, (key, name) in [(mode, score) for mode in MODES for score in SCORES[arm.task].items()]:
        values, others = (
            {seed: result.last(f"{mode}/{key}") for seed, result in each.items()}
            for each in (done, reference)
        )
        cells[f"{mode}: {name}"] = mean_and_deviation([*values.values()])
        if paired := [values[seed] - others[seed] for seed in values if seed in others]:
            cells[f"{mode}: {name}"] += f" ({mean_and_deviation(paired, '+.1f')})"
    return cells


@cache
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


def attention_table(results: Results) -> str:
    """A row for each block in a backbone: means over the figures, for each seed."""
    rows = []
    for arm in dict.fromkeys(training.arm for training in results):
        done = by_seed(results, arm)
        for block, columns in next(iter(done.values())).attention.items():
            row = {"task": arm.task, "pictures": arm.kind, "arm": arm.name, "block": block}
            row["seeds"] = ", ".join(map(str, done))
            means = [result.attention[block] for result in done.values()]
            form = {"query dependence": ".2f"}
            row |= {
                name: ", ".join(f"{each[name]:{form.get(name, '.0f')}}" for each in means) for name in columns
            }
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def trainings_table(results: Results) -> str:
    """A row for each finished training: with which code, and how long it took."""
    rows = []
    for each in results.values():
        row = {"training": each.arm, "seed": each.seed, "code": ", ".join(each.code)}
        row |= {"operation": ", ".join(each.operation), "steps": max(map(max, each.curves.values()))}
        row["time"] = "-" if each.seconds is None else str(timedelta(seconds=each.seconds))
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
