"""What finished trainings of the matrix show: paired differences by seed, costs, curves, and attention."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from nl_detectron.analysis import Counts, count_by_stage, total
from nl_detectron.errors import UserError
from nl_detectron.files import written_whole
from nl_detectron.results import Run, find_places, mean_score, plot_variants, replace_places

from .chance import chance_table
from .cue import attention_table, draw_attention
from .matrix import ARMS, BASELINES, Arm, trainings
from .runs import finished

SCORES = {  # what is shown of each task, and how it is called
    "mask": {"bbox/AP": "box AP", "segm/AP": "mask AP"},
    "keypoint": {"keypoints/AP": "keypoint AP", "bbox/AP": "box AP"},
}
LOSSES = {"mask": "loss_cls", "keypoint": "loss_keypoint"}  # those that cannot get small without the disc
Runs = dict[Arm, dict[int, Run]]  # by arm and seed


def write_report(output: Path, file: Path) -> None:
    """Write the tables into the places of a Markdown file, and the pictures beside it.

    Args:
        output: the folder of the experiment.
        file: it has places <!-- results:NAME --> of these names: summary, mask, keypoint,
            chance, attention.

    Raises:
        UserError: if it has others or none, or if nothing of the matrix is finished.
    """
    writers: dict[str, Callable[[Runs], str]] = {
        "summary": summary,
        "mask": lambda runs: table("mask", runs),
        "keypoint": lambda runs: table("keypoint", runs),
        "chance": lambda _: chance_table(output / "datasets"),
        "attention": lambda runs: attention_table(runs, output / "datasets"),
    }
    places = find_places(file, writers)
    runs = read_all(output)
    if not runs:
        raise UserError(f"--output must have finished trainings to report; {output} has none.")
    replace_places(file, {place: writers[place](runs) + "\n" for place in places})
    save(draw_curves(runs), file.with_name(f"{file.stem}_curves.png"))
    for name, figure in draw_attention(runs, output / "datasets"):
        save(figure, file.with_name(f"{file.stem}_attention_{name}.png"))


def save(figure: Figure, file: Path) -> None:
    with written_whole(file) as unfinished:
        figure.savefig(unfinished, format="png", dpi=80)


def read_all(output: Path) -> Runs:
    """The finished trainings, in the order of the matrix."""
    runs: Runs = {}
    for arm in ARMS:
        for training in trainings([arm.path]):
            if run := finished(training, output):
                runs.setdefault(arm, {})[training.seed] = run
    return runs


def summary(runs: Runs) -> str:
    """How much of the matrix there is, of what code, and how long it took."""
    every = [run for by_seed in runs.values() for run in by_seed.values()]
    code = sorted(frozenset.union(*(run.code for run in every)))
    text = (
        f"{len(every)} of the {len(trainings())} trainings of the matrix are finished, of {', '.join(code)}."
    )
    seconds = [run.seconds for run in every if run.seconds is not None]  # None: it was interrupted
    if seconds:
        each = timedelta(seconds=round(np.median(seconds)))
        text += f" One took {each} (the median of the {len(seconds)} that were not interrupted)."
    return text


def table(task: str, runs: Runs) -> str:
    """A row for each arm of the matrix; what is not trained says so."""
    baseline = BASELINES[task]
    cost = count(baseline)
    rows = []
    for arm in (arm for arm in ARMS if arm.task == task):
        row = {"arm": arm.name, "seeds": ", ".join(map(str, runs.get(arm, {}))) or "not trained"}
        if arm in runs:
            row |= _cells(task, runs[arm], runs.get(baseline, {}) if arm != baseline else {})
            row |= _cost(count(arm), cost)
        rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)


def _cells(task: str, runs: dict[int, Run], baseline: dict[int, Run]) -> dict[str, str]:
    """Each score, and in brackets the mean of its differences to the baseline of the same seed."""
    cells = {}
    for where in ("far", "near"):
        for key, name in SCORES[task].items():
            values = {seed: _score(run, where, key) for seed, run in runs.items()}
            paired = [values[seed] - _score(baseline[seed], where, key) for seed in runs if seed in baseline]
            difference = f" ({mean_score(paired, '+.1f')})" if paired else ""
            cells[f"{where}: {name}"] = f"{mean_score([*values.values()])}{difference}"
    return cells


def _score(run: Run, where: str, key: str) -> float:
    return run.scores[f"{_tested_on(run, where)}/{key}"]


def _tested_on(run: Run, where: str) -> str:
    """Its test set of the far or near pictures."""
    return next(name for name in run.cfg.DATASETS.TEST if f"_{where}_" in name)


def count(arm: Arm) -> Counts:
    """What a model costs for one picture, with all the regions that it may see."""
    cfg = arm.cfg()
    regions = (cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)
    return total(count_by_stage(cfg, *[cfg.INPUT.MIN_SIZE_TEST] * 2, *regions).values())


def _cost(cost: Counts, baseline: Counts) -> dict[str, str]:
    if cost == baseline:
        return {
            "multiply-adds": f"{cost.multiply_adds / 1e9:.2f} G",
            "parameters": f"{cost.parameters / 1e6:.2f} M",
        }
    more = {field: getattr(cost, field) / getattr(baseline, field) - 1 for field in Counts._fields}
    return {"multiply-adds": f"{more['multiply_adds']:+.1%}", "parameters": f"{more['parameters']:+.1%}"}


def draw_curves(runs: Runs) -> Figure:
    """A row for each task: the loss in training, and the score that needs the disc, far and near."""
    tasks = [task for task in BASELINES if any(arm.task == task for arm in runs)]
    figure = Figure(figsize=(15, 4.4 * len(tasks)), layout="constrained")
    for row, task in zip(figure.subplots(len(tasks), 3, squeeze=False), tasks, strict=True):
        arms = {arm.name: [*by_seed.values()] for arm, by_seed in runs.items() if arm.task == task}
        colours = {name: "black" if name == "baseline" else f"C{k}" for k, name in enumerate(arms)}
        for axes, (key, label) in zip(row, _curves(task, next(iter(arms.values()))[0]), strict=True):
            plot_variants(axes, key, arms, colours)
            axes.set(xlabel="iteration", ylabel=label, ylim=(0, None))
        row[0].set_title(f"{task} R-CNN", loc="left")
        row[0].legend(fontsize=7)
    return figure


def _curves(task: str, run: Run) -> Iterator[tuple[str, str]]:
    """The metrics that are plotted, and what they are called."""
    yield LOSSES[task], f"{LOSSES[task]}, near and far together"
    key, name = next(iter(SCORES[task].items()))
    for where in ("far", "near"):
        yield f"{_tested_on(run, where)}/{key}", f"{name}, {where}"
