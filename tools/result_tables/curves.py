"""Training curves: loss and AP over the iterations, a thin line for each seed and their mean."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.engine import Run

from .pairing import BASELINE, SCORES, Comparison, blocks_of, count_seeds, scores_of, setting_of
from .tables import labels_of


def plot_curves(comparisons: Sequence[Comparison]) -> Figure:
    """A row of plots for each setting: the loss, and the AP of each task that any setting has."""
    labelled = zip(comparisons, labels_of(comparisons), strict=True)
    settings = [[*group] for _, group in groupby(labelled, lambda item: setting_of(item[0].runs[0]))]
    evaluated = {key for comparison in comparisons for key in scores_of(comparison.runs[0])}
    keys = ["total_loss", *(key for key in SCORES if key.endswith("/AP") and key in evaluated)]
    figure = Figure(figsize=(5 * len(keys), 3.6 * len(settings)), layout="constrained")
    for row, group in zip(figure.subplots(len(settings), len(keys), squeeze=False), settings, strict=True):
        baselines = {run.folder: run for comparison, _ in group for run in comparison.baselines}
        variants = {BASELINE: [*baselines.values()]}
        variants |= {blocks_of(comparison.runs[0].cfg): comparison.runs for comparison, _ in group}
        for ax, key in zip(row, keys, strict=True):
            for colour, (blocks, runs) in enumerate(variants.items()):
                _plot(ax, key, runs, f"{blocks}, {count_seeds(runs)}", f"C{colour}")
            ax.set(xlabel="iteration", ylabel=SCORES.get(key, "total loss"), xlim=(0, None), ylim=(0, None))
        row[0].set_title(", ".join(group[0][1].values()), loc="left")
        row[-1].legend(loc="lower right")
    return figure


def _plot(ax: Axes, key: str, runs: Sequence[Run], label: str, colour: str) -> None:
    """The mean of the runs at the iterations that all of them have, and each run if there are several."""
    style = {"color": colour, "marker": "." if key in SCORES else ""}
    curves = [_curve(run, key) for run in runs]
    if len(curves) > 1:
        for curve in curves:
            ax.plot([*curve], [*curve.values()], linewidth=0.6, alpha=0.6, **style)
    steps = sorted(set.intersection(*map(set, curves)))
    ax.plot(steps, [np.mean([curve[step] for curve in curves]) for step in steps], label=label, **style)


def _curve(run: Run, key: str) -> dict[int, float]:
    """A metric by the number of updates that the model had seen.

    A loss is written under just that; an evaluation under one less, but the last one under MAX_ITER.
    """
    last = run.cfg.SOLVER.MAX_ITER if key in SCORES else 0
    history = sorted(run.history.items())
    return {step + (step < last): values[key] for step, values in history if key in values}
