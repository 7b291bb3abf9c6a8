"""The report's pictures: curves of the trainings, and what a figure attends to."""

from collections.abc import Iterator
from pathlib import Path

from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure

from nl_detectron.attention import draw_queries, observe, queries
from nl_detectron.images import read_image
from nl_detectron.results import Run, plot_variants

from .matrix import GROUPS, MAIN, Arm
from .seeing import in_backbone, middle, predictor_of, tested_on
from .tables import SCORES

LOSSES = {"mask": "loss_cls", "keypoint": "loss_keypoint"}


def draw_curves(runs: dict[Arm, dict[int, Run]]) -> Figure:
    """A row for each group with something to compare: the loss in training, and the score that needs the
    disc, far and near."""
    groups = [[arm for arm in group if arm in runs] for group in GROUPS.values()]
    groups = [group for group in groups if len(group) > 1] or [group for group in groups if group][:1]
    figure = Figure(figsize=(15, 4.4 * len(groups)), layout="constrained")
    for row, group in zip(figure.subplots(len(groups), 3, squeeze=False), groups, strict=True):
        arms = {arm.name: [*runs[arm].values()] for arm in group}
        colours = {arm.name: "black" if arm.name == "baseline" else f"C{k}" for k, arm in enumerate(group)}
        for axes, (key, label) in zip(row, _curves(group[0], arms[group[0].name][0]), strict=True):
            plot_variants(axes, key, arms, colours)
            axes.set(xlabel="iteration", ylabel=label)
        row[0].set_title(f"{group[0].task.capitalize()} R-CNN", loc="left")
        row[0].legend(fontsize=7)
    return figure


def _curves(arm: Arm, run: Run) -> Iterator[tuple[str, str]]:
    """The metrics that are plotted, and what they are called."""
    yield LOSSES[arm.task], f"{LOSSES[arm.task]} in training, far and near"
    key, name = next(iter(SCORES[arm.task].items()))
    for where in ("far", "near"):
        yield f"{tested_on(run, where)}/{key}", f"{name}, {where}"


def draw_attention(runs: dict[Arm, dict[int, Run]]) -> Iterator[tuple[str, Figure]]:
    """The first far pair as the main arm's first training sees it, by category."""
    if MAIN not in runs:
        return
    run = next(iter(runs[MAIN].values()))
    predictor = predictor_of(run)
    for record in DatasetCatalog.get(tested_on(run, "far"))[:2]:
        observation = observe(predictor, read_image(Path(record["file_name"])))
        figure = record["annotations"][0]
        category = predictor.metadata.thing_classes[figure["category_id"]]
        x, y = middle(figure["bbox"])
        asked = [queries.Query(category, "", x, y, field) for field in in_backbone(observation)]
        yield category, draw_queries(observation.image, asked)
