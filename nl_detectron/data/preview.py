"""A picture of far and near pairs, from which a human sees the rule."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.files import written_whole

from .far import Picture, draw_pair

_SCENES = 3
_WRISTS = ((9, "L"), (10, "R"))  # COCO's indices of the left and the right one


def write_preview(file: Path, side: int = 192, seed: int = 0) -> None:
    """Write the first pairs of the training set, far and near, with their labels, as a picture."""
    figure = Figure(figsize=(8, 6.4), layout="constrained")
    columns = figure.subfigures(1, 2)
    for near, half in enumerate(columns):
        half.suptitle("near: the disc is beside each figure" if near else "far: the disc is opposite")
        for row, axes in enumerate(half.subplots(_SCENES, 2)):
            pair = draw_pair(np.random.default_rng([seed, 0, row]), side, near=bool(near))
            for axis, picture in zip(
                axes, sorted(pair, key=lambda picture: picture[1][0].category), strict=True
            ):
                _show(axis, picture)
    with written_whole(file) as unfinished:
        figure.savefig(unfinished, dpi=100)


def _show(axis: Axes, picture: Picture) -> None:
    image, drawn = picture
    axis.imshow(image[:, :, ::-1])
    axis.set(xticks=[], yticks=[], title=drawn[0].category)
    for figure in drawn:
        for joint, name in _WRISTS:
            x, y, _ = figure.keypoints[joint]
            axis.text(
                x,
                y,
                name,
                color="white",
                weight="bold",
                ha="center",
                va="center",
                bbox={"boxstyle": "circle", "fc": "black"},
            )
