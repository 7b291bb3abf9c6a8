"""Training curves: loss and AP over the iterations, a thin line for each seed and their mean."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.engine import Run

from .pairing import BASELINE, SCORES, Comparison, scores_of
from .tables import count_seeds, labels_of


def plot_curves(comparisons: Sequence[Comparison]) -> Figure:
    """A row of plots for each setting: the loss, and the AP of each task that any setting has."""
    settings: dict[str, list[Comparison]] = {}
    for comparison, label in zip(comparisons, labels_of(comparisons), strict=True):
        settings.setdefault(", ".join(label.values()), []).append(comparison)
    evaluated = {key for comparison in comparisons for key in scores_of(comparison.runs[0])}
    keys = ["total_loss", *(key for key in SCORES if key.endswith("/AP") and key in evaluated)]
    figure = Figure(figsize=(5 * len(keys), 3.6 * len(settings)), layout="constrained")
    rows = figure.subplots(len(settings), len(keys), squeeze=False)
    for row, (title, group) in zip(rows, settings.items(), strict=True):
        baselines = {run.folder: run for comparison in group for run in comparison.baselines}
        variants = {BASELINE: [*baselines.values()]} | {each.blocks: each.runs for each in group}
        for ax, key in zip(row, keys, strict=True):
            for number, (blocks, runs) in enumerate(variants.items()):
                _plot(ax, key, runs, f"{blocks}, {count_seeds(runs)}", f"C{number}")
            ax.set(xlabel="iteration", ylabel=SCORES.get(key, "total loss"), xlim=(0, None), ylim=(0, None))
        row[0].set_title(title, loc="left")
        row[-1].legend()
    return figure


def _plot(ax: Axes, key: str, runs: Sequence[Run], label: str, color: str) -> None:
    """The mean of the runs at the iterations that all of them have, and each run if there are several."""
    style = {"color": color, "marker": "." if key in SCORES else ""}
    curves = [{k: values[key] for k, values in sorted(run.history.items()) if key in values} for run in runs]
    for curve in curves if len(curves) > 1 else ():
        ax.plot([*curve], [*curve.values()], linewidth=0.6, alpha=0.6, **style)
    steps = sorted(set.intersection(*map(set, curves)))
    ax.plot(steps, [np.mean([curve[step] for curve in curves]) for step in steps], label=label, **style)
