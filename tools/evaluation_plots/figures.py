"""The plots of tools/plot_evaluation.py."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

NAMES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
MAX_CURVES = 10  # as many as matplotlib has colours
RECALLS = np.linspace(0, 1, 101)  # COCO's


def plot_curves(precisions: Mapping[str, np.ndarray], objects: Mapping[str, int]) -> Figure:
    """Precision over recall, a column for each task: in total above, by category below.

    Args:
        precisions: of each task, (10 IoUs, 101 recalls, K categories), -1 for a category without objects.
        objects: the number of each category, in the order of the K.
    """
    names, order = [*objects], np.argsort([-count for count in objects.values()], kind="stable")
    shown = [k for k in order if objects[names[k]]][:MAX_CURVES]
    figure = Figure(figsize=(7 * len(precisions), 9), layout="constrained")
    for (task, precision), (above, below) in zip(
        precisions.items(), figure.subplots(2, len(precisions), squeeze=False).T, strict=True
    ):
        total = precision[:, :, precision[0, 0] > -1].mean(2)
        for label, curve in (("0.50", total[0]), ("0.75", total[5]), ("0.50:0.95", total.mean(0))):
            _draw(above, f"IoU {label}: AP {100 * curve.mean():.1f}", curve)
        above.set_title(f"{NAMES[task]}, mean of the categories")
        for k in shown:
            curve = precision[:, :, k].mean(0)
            if curve[0] > -1:
                _draw(below, f"{names[k]}: AP {100 * curve.mean():.1f}", curve)
        most = f"{len(shown)} of {len(names)} categories" if len(shown) < len(names) else "by category"
        below.set_title(f"{NAMES[task]}, {most}, IoU 0.50:0.95")
    return figure


def _draw(axes: Axes, label: str, curve: np.ndarray) -> None:
    axes.plot(RECALLS, curve, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves, which may be anywhere


def plot_confusion(counts: np.ndarray, categories: Sequence[str], title: str) -> Figure:
    """A matrix of counts as `count_confusions` returns it, coloured by the part of the row.

    A category without objects and detections is left out.
    """
    used = [k for k in range(len(counts)) if counts[k].any() or counts[:, k].any() or k == len(categories)]
    counts = counts[np.ix_(used, used)]
    rows, columns = ([*categories, last] for last in ("background", "missed"))
    is_large = len(used) > 12
    cell = 0.26 if is_large else 0.6  # inches
    side = cell * len(used) + (4 if is_large else 2)
    figure = Figure(figsize=(side + 0.5, side), layout="constrained")
    axes = figure.subplots()
    parts = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(used)), [columns[k] for k in used], rotation=90)
    axes.set_yticks(range(len(used)), [rows[k] for k in used])
    for row, column in np.argwhere(counts):
        colour = "white" if parts[row, column] > 0.5 else "black"
        place = {"ha": "center", "va": "center", "fontsize": 7 if is_large else 11}
        axes.text(column, row, counts[row, column], color=colour, **place)
    axes.set_xlabel("detected as", fontsize=side + 6)
    axes.set_ylabel("truth", fontsize=side + 6)
    axes.set_title(title, fontsize=side + 6)
    if is_large:
        axes.grid(alpha=0.2)
        axes.tick_params(right=True, labelright=True, top=True, labeltop=True)
    return figure
