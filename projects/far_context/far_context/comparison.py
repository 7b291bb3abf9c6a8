"""A picture of what two models say of the same far pictures, and of what a block attends to."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nl_detectron_attention import queries

from nl_detectron.inspect import Observation, observe, read_image
from nl_detectron.predictor import Predictor

from .evaluation import center, decide, fields_in_backbone

_COLORS = {"front": "crimson", "back": "royalblue"}  # those of the discs


def draw_comparison(records: Sequence[dict], baseline: Predictor, block: Predictor) -> Figure:
    """A row for each record of a far data set: the baseline at the left, the model with a block at the right.

    An arrow leads from each figure to the position that it attends to most.
    """
    images = [read_image(Path(record["file_name"])) for record in records]
    height, width = images[0].shape[:2]
    figure = Figure(figsize=(10, 0.5 + len(records) * 5 * height / width), layout="constrained")
    panels = figure.subplots(len(records), 2, squeeze=False)
    for predictor, column in zip((baseline, block), panels.T, strict=True):
        for record, image, axes in zip(records, images, column, strict=True):
            _draw(axes, record, observe(predictor, image), predictor.metadata.thing_classes)
    panels[0, 0].set_title("without a block")
    panels[0, 1].set_title("with one non-local block: what the figure attends to most")
    return figure


def _draw(axes: Axes, record: dict, seen: Observation, classes: Sequence[str]) -> None:
    axes.imshow(seen.image[:, :, ::-1], extent=(0, seen.image.shape[1], seen.image.shape[0], 0))
    axes.set(xticks=[], yticks=[])
    found = seen.instances[: len(record["annotations"])]  # the most certain ones
    for figure in record["annotations"]:
        x, y = center(figure["bbox"])
        for field in fields_in_backbone(seen):
            query = queries.Query("", "", x, y, field)
            disc = field.grid.pooled_centre(int(query.weights().argmax()))
            style = {"arrowstyle": "-|>", "color": "darkorange", "lw": 2.5, "mutation_scale": 18}
            axes.annotate("", xy=disc, xytext=(x, y), arrowprops=style)
        verdict = {1: "right", 0: "wrong", None: "not found"}[decide(found, figure)]
        color = "green" if verdict == "right" else "red"
        truth = classes[figure["category_id"]]
        text = f"{verdict}: it is seen from the {truth}"
        axes.set_xlabel(text, color=color, weight="bold", loc="left")
    detections = zip(found.pred_boxes.tensor.tolist(), found.pred_classes.tolist(), found.scores, strict=True)
    for (left, top, right, bottom), label, score in detections:
        color = _COLORS[classes[label]]
        axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color=color)
        style = {"color": "white", "weight": "bold", "ha": "center", "va": "top"}
        style["bbox"] = {"fc": color, "lw": 0, "pad": 2}
        axes.text((left + right) / 2, bottom + 2, f"{classes[label]} {float(score):.0%}", **style)
