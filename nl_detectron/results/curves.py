"""Training curves: the loss and AP over the iterations, a thin line for each seed and their mean."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.errors import UserError, reported_as_user_errors
from nl_detectron.files import written_whole

from .names import BASELINE, blocks_of, count_seeds
from .pairing import Comparison, run_setting
from .runs import SCORES, Run
from .tables import labels_of


def draw_curves(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write `plot_curves` to a file, in the format that its ending names.

    Raises:
        UserError: see `check_format`.
    """
    check_format(path)
    figure = plot_curves(comparisons)
    with reported_as_user_errors(f"{path} cannot be drawn"), written_whole(path) as unfinished:
        figure.savefig(unfinished, dpi=150, format=path.suffix[1:])


def check_format(path: Path) -> None:
    """Refuse a file whose ending names no format of matplotlib's."""
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise UserError(
            f"{path} must end in a format that can be drawn; use .png, or one of {', '.join(formats)}."
        )


def plot_curves(comparisons: Sequence[Comparison]) -> Figure:
    """A row of plots for each setting: the loss, and the AP of each task."""
    labelled = zip(comparisons, labels_of(comparisons), strict=True)
    settings = [[*group] for _, group in groupby(labelled, lambda each: run_setting(each[0].runs[0]))]
    plots = [_plots(group[0][0].runs[0]) for group in settings]
    columns = max(map(len, plots))
    figure = Figure(figsize=(5 * columns, 3.6 * len(settings)), layout="constrained")
    variants = dict.fromkeys(blocks_of(comparison.runs[0].cfg) for comparison in comparisons)
    colours = {BASELINE: "black"} | {blocks: f"C{k}" for k, blocks in enumerate(variants)}
    axes = figure.subplots(len(settings), columns, squeeze=False)
    for row, group, keys in zip(axes, settings, plots, strict=True):
        for ax, (key, label) in zip(row, keys.items(), strict=False):
            plot_variants(ax, key, _by_variant([comparison for comparison, _ in group]), colours)
            ax.set(xlabel="iteration", ylabel=label)
            ax.set_xlim(0, 1.02 * group[0][0].runs[0].cfg.SOLVER.MAX_ITER)
            if key != "total_loss":
                ax.update_datalim([(0, 0)])  # so that the margin above is one of the whole height
                ax.autoscale_view(scalex=False)
                ax.set_ylim(bottom=0)
        row[0].set_title(", ".join(group[0][1].values()), loc="left")
        row[0].legend()
        for ax in row[len(keys) :]:
            ax.remove()
    return figure


def _plots(run: Run) -> dict[str, str]:
    """What is plotted, and how it is called."""
    scores = {key: name for key, name in SCORES.items() if key in run.scores and key.endswith("/AP")}
    return {"total_loss": "total loss"} | scores


def _by_variant(comparisons: list[Comparison]) -> dict[str, list[Run]]:
    """Each run once, the baseline's first."""
    pairs = [pair for comparison in comparisons for pair in comparison.pairs]
    runs = {run.folder: run for each in zip(*pairs, strict=True) for run in each}.values()
    return {blocks: [*variant] for blocks, variant in groupby(runs, lambda run: blocks_of(run.cfg))}


def plot_variants(ax: Axes, key: str, variants: dict[str, list[Run]], colours: dict[str, str]) -> None:
    """The mean curve of each variant's runs, and a thin one for each run if there are several.

    Args:
        key: of the metrics, a loss or a score.
        variants: the runs by the name that the legend has for them.
    """
    for blocks, runs in variants.items():
        style = {"color": colours[blocks], "marker": "." if _is_score(key) else ""}
        curves = [curve_of(run, key) for run in runs]
        if len(curves) > 1:
            for curve in curves:
                ax.plot(*zip(*sorted(curve.items()), strict=True), linewidth=0.6, alpha=0.6, **style)
        steps = sorted(set.intersection(*map(set, curves)))  # that all seeds have
        means = [np.mean([curve[step] for curve in curves]) for step in steps]
        ax.plot(steps, means, linewidth=2, label=f"{blocks}, {count_seeds(runs)}", **style)


def curve_of(run: Run, key: str) -> dict[int, float]:
    """The values of a metric by the number of updates that the model had seen.

    A loss is written under just that; an evaluation under the iteration whose update came right before, but
    for the last one, which is under MAX_ITER.
    """
    last = run.cfg.SOLVER.MAX_ITER if _is_score(key) else 0
    return {step + (step < last): values[key] for step, values in run.history.items() if key in values}


def _is_score(key: str) -> bool:
    return "/" in key
