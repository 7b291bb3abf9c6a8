"""The report's pictures: curves of the trainings, and what a figure attends to."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nl_detectron_attention import draw_queries, queries

from nl_detectron.engine import Run
from nl_detectron.inspect import observe, read_image

from .evaluation import center, dataset_of, fields_in_backbone, predictor_of
from .folder import Experiment
from .labels import CATEGORIES
from .matrix import (
    FORMS,
    GROUPS,
    KEYPOINT,
    MAIN,
    OWN,
    PLACES,
    SETTINGS,
    TUNED,
    TUNED_ENDS,
    Arm,
    Training,
)
from .results import LOSSES, SCORES, Curve, Results, by_seed, first_score


def draw_curves(results: Results) -> Figure:
    """A row for each group of several trained arms, unless a larger row has them all: the training loss, and
    the score that needs the disc.
    """
    rows = (PLACES, FORMS, SETTINGS, TUNED, OWN, KEYPOINT, TUNED_ENDS, GROUPS["longer"])
    groups = [tuple(arm for arm in group if by_seed(results, arm)) for group in rows]
    groups = list(dict.fromkeys(groups))
    groups = [group for group in groups if not any({*group} < {*row} for row in groups)]
    groups = [group for group in groups if len(group) > 1] or [(next(iter(results)).arm,)]
    figure = Figure(figsize=(15, 4.4 * len(groups)), layout="constrained")
    for row, group in zip(figure.subplots(len(groups), 3, squeeze=False), groups, strict=True):
        task, score = group[0].task, first_score(group[0])
        keys = {"loss": f"{LOSSES[task]} in training, far and near"}
        keys |= {f"{mode}/{score}": f"{SCORES[task][score]}, {mode}" for mode in ("far", "near")}
        for axes, (key, label) in zip(row, keys.items(), strict=True):
            for k, arm in enumerate(group):
                style = {"color": "black" if arm.name == "baseline" else f"C{k}"}
                style["marker"] = "" if key == "loss" else "."
                _plot(axes, [each.curves[key] for each in by_seed(results, arm).values()], arm.name, style)
            axes.set(xlabel="iteration", ylabel=label)
        pictures = f', pictures "{group[0].kind}"' if group[0].kind != "one" else ""
        row[0].set_title(f"{task.capitalize()} R-CNN{pictures}", loc="left")
        row[0].legend(fontsize=7)
    return figure


def _plot(axes: Axes, curves: Sequence[Curve], name: str, style: dict[str, str]) -> None:
    """The mean of an arm's seeds, and a thin line for each of several."""
    for curve in curves if len(curves) > 1 else ():
        axes.plot([*curve], [*curve.values()], linewidth=0.6, alpha=0.6, **style)
    steps = [step for step in curves[0] if all(step in curve for curve in curves)]
    means = [np.mean([curve[step] for curve in curves]) for step in steps]
    label = f"{name}, {len(curves)} seed{'s' * (len(curves) > 1)}"
    axes.plot(steps, means, linewidth=2, label=label, **style)


def draw_attention(experiment: Experiment) -> Iterator[tuple[str, Figure]]:
    """What figures attend to in the first training of an arm whose weights are there, by a picture's name:
    the first figure of a far pair with one disc, both figures of the first picture with two labels, and the
    elbows of the first long figure that is alone.
    """
    if run := _first(experiment, MAIN):
        for record in DatasetCatalog.get(dataset_of(run, "far"))[:2]:
            figure = record["annotations"][0]
            yield CATEGORIES[figure["category_id"]], _draw_figures(run, record, [figure])
    if run := _first(experiment, OWN[2]):
        records = DatasetCatalog.get(dataset_of(run, "far"))
        labels = [{figure["category_id"] for figure in record["annotations"]} for record in records]
        for record in [record for record, both in zip(records, labels, strict=True) if len(both) > 1][:1]:
            yield "own", _draw_figures(run, record, record["annotations"])
    if run := _first(experiment, TUNED_ENDS[1]):
        records = DatasetCatalog.get(dataset_of(run, "far"))
        for record in [record for record in records if len(record["annotations"]) == 1][:1]:
            yield "ends", _draw_elbows(run, record)


def _first(experiment: Experiment, arm: Arm) -> Run | None:
    runs = (experiment.finished(Training(arm, seed)) for seed in arm.seeds)
    return next(filter(None, runs), None)


def _draw_figures(run: Run, record: dict, figures: Sequence[dict]) -> Figure:
    """What the centers of figures attend to, for each block of the backbone."""
    observation = observe(predictor_of(run), read_image(Path(record["file_name"])))
    asked = []
    for figure in figures:
        x, y = center(figure["bbox"])
        name = CATEGORIES[figure["category_id"]]
        asked += [queries.Query(name, "", x, y, field) for field in fields_in_backbone(observation)]
    return draw_queries(observation.image, asked)


def _draw_elbows(run: Run, record: dict) -> Figure:
    """What the elbows of a figure attend to in the first block of the keypoint head."""
    observation = observe(predictor_of(run), read_image(Path(record["file_name"])))
    field = next(each for each in observation.fields if each.detection == 0)
    grid, points = field.grid, np.reshape(record["annotations"][0]["keypoints"], (-1, 3))
    first, last = grid.top + grid.height / 2, grid.top + (grid.rows - 0.5) * grid.height  # arms may stick out
    asked = [
        queries.Query(name, "", points[joint, 0], np.clip(points[joint, 1], first, last), field)
        for name, joint in {"left elbow": 7, "right elbow": 8}.items()
    ]
    return draw_queries(observation.image, asked)
