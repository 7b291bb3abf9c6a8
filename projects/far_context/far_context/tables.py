"""The report's tables: what arms decide and score, beside the first of their group, and where blocks look."""

from collections.abc import Sequence

import numpy as np
from tabulate import tabulate

from nl_detectron.analysis import Counts, count_by_stage, total
from nl_detectron.results import Run, curve_of, mean_score

from .folder import Experiment
from .matrix import Arm, trainings
from .seeing import Seen, tested_on

SCORES = {  # what is shown of each task, and how it is called; the first one needs the disc
    "mask": {"bbox/AP": "box AP", "segm/AP": "mask AP"},
    "keypoint": {"keypoints/AP": "keypoint AP", "bbox/AP": "box AP"},
}
LEARNT = 90  # AP50 from which on a model has learnt

Trainings = dict[int, tuple[Run, Seen]]  # of an arm, by seed


def group_table(experiment: Experiment, group: Sequence[Arm], arms: dict[Arm, Trainings]) -> str:
    """A row for each arm of a group, in brackets its differences to the first one."""
    reference, cost = group[0], count(experiment, group[0])
    rows = []
    for arm in group:
        row = {"arm": arm.name, "seeds": _seeds(experiment, arm, arms.get(arm, {}))}
        if arm in arms:
            row |= _decisions(arm, arms[arm])
            row |= _scores(arm, arms[arm], arms.get(reference, {}) if arm != reference else {})
            row |= _cost(count(experiment, arm), cost)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _seeds(experiment: Experiment, arm: Arm, finished: Trainings) -> str:
    stopped = [
        f"{training.seed} only to step {step}"
        for training in trainings([arm.path])
        if training.seed not in finished and (step := experiment.step(training))
    ]
    return ", ".join([*map(str, finished), *stopped]) or "not trained"


def _decisions(arm: Arm, done: Trainings) -> dict[str, str]:
    """How many of the far figures are decided rightly, and after how many steps they are."""
    steps = [learnt_after(run, _first(SCORES[arm.task]) + "50") for run, _ in done.values()]
    return {
        "far: right, %": str(mean_score([seen.right_share() for _, seen in done.values()])),
        "far: told apart, %": str(mean_score([seen.told_apart_share() for _, seen in done.values()])),
        f"far: AP50 > {LEARNT} after": ", ".join(steps),
    }


def learnt_after(run: Run, key: str) -> str:
    """The first evaluation on far pictures from which on a score stays above LEARNT, in steps."""
    curve = sorted(curve_of(run, f"{tested_on(run, 'far')}/{key}").items())
    below = [k for k, (_, value) in enumerate(curve) if not value > LEARNT]
    first = below[-1] + 1 if below else 0
    return str(curve[first][0]) if first < len(curve) else "-"


def _scores(arm: Arm, done: Trainings, reference: Trainings) -> dict[str, str]:
    """Each score, and in brackets the mean of its differences to the reference with the same seed."""
    cells = {}
    for where in ("far", "near"):
        for key, name in SCORES[arm.task].items():
            values, others = (
                {seed: run.scores[f"{tested_on(run, where)}/{key}"] for seed, (run, _) in each.items()}
                for each in (done, reference)
            )
            paired = [values[seed] - others[seed] for seed in values if seed in others]
            difference = f" ({mean_score(paired, '+.1f')})" if paired else ""
            cells[f"{where}: {name}"] = f"{mean_score([*values.values()])}{difference}"
    return cells


def count(experiment: Experiment, arm: Arm) -> Counts:
    """What a model costs for one picture, with all the regions that it may see."""
    cfg = experiment.cfg(arm)
    regions = (cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)
    return total(count_by_stage(cfg, *[cfg.INPUT.MIN_SIZE_TEST] * 2, *regions).values())


def _cost(cost: Counts, reference: Counts) -> dict[str, str]:
    if cost == reference:
        operations, parameters = f"{cost.multiply_adds / 1e9:.2f} G", f"{cost.parameters / 1e6:.2f} M"
    else:
        operations = f"{cost.multiply_adds / reference.multiply_adds - 1:+.1%}"
        parameters = f"{cost.parameters / reference.parameters - 1:+.1%}"
    return {"multiply-adds": operations, "parameters": parameters}


def attention_table(arms: dict[Arm, Trainings]) -> str:
    """A row for each block in a backbone: means over the figures, one for each seed."""
    rows = []
    for arm, done in arms.items():
        every = [seen for _, seen in done.values()]
        for block in every[0].looks:
            means = [_means(seen, block) for seen in every]
            cells = {name: ", ".join(f"{each[name]:.0f}" for each in means) for name in means[0]}
            dependence = ", ".join(f"{np.mean(seen.dependence[block]):.2f}" for seen in every)
            names = {"task": arm.task, "arm": arm.name, "block": block, "seeds": ", ".join(map(str, done))}
            rows.append(names | cells | {"query dependence": dependence})
    return tabulate(rows, "keys", "github", disable_numparse=True)


def _means(seen: Seen, block: str) -> dict[str, float]:
    """The weight on discs in per cent, by column."""
    looks = seen.looks[block]
    columns = {}
    for name, red in {"red": True, "blue": False}.items():
        those = [look for look in looks if look.red == red]
        columns[f"on a {name} disc, %"] = 100 * float(np.mean([look.weight for look in those]))
        columns[f"{name}: from everywhere"] = 100 * float(np.mean([look.everywhere for look in those]))
    return columns | {"if all were alike": 100 * float(np.mean([look.alike for look in looks]))}


def _first(scores: dict[str, str]) -> str:
    return next(iter(scores))
