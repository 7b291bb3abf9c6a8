"""A picture of far and near pairs, which shows the rule."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nl_detectron.errors import reported_as_user_errors
from nl_detectron.files import written_whole

from .far import Picture, draw_pair

_SIDE = 256
_SEED = 38  # of which the first pair has one figure at the left, the second two at the right
_PAIRS = 2
_TITLES = ("far: the disc at the other side tells", "near: the disc beside each figure tells")
_ARMS = {"L": ([5, 7, 9], "orange"), "R": ([6, 8, 10], "cyan")}  # COCO's shoulder, elbow and wrist


def write_preview(file: Path) -> None:
    """Write the first pairs of a training set, far and near, with their labels, as a picture.

    Raises:
        UserError: for a kind of file that matplotlib does not write.
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(10, 2.9 * _PAIRS), layout="constrained")
    for near, half in enumerate(figure.subfigures(1, 2, wspace=0.03)):
        half.suptitle(_TITLES[near], weight="bold")
        for row, axes in enumerate(half.subplots(_PAIRS, 2)):
            pair = draw_pair(np.random.default_rng([_SEED, 0, row]), _SIDE, near=bool(near))
            for axis, picture in zip(axes, pair, strict=True):
                _show(axis, picture)
    with reported_as_user_errors(f"{file} cannot be written"), written_whole(file) as unfinished:
        figure.savefig(unfinished, dpi=100)


def _show(axis: Axes, picture: Picture) -> None:
    image, drawn = picture
    axis.imshow(image[:, :, ::-1])
    axis.set(xticks=[], yticks=[], title=drawn[0].category)
    for figure in drawn:
        for name, (joints, color) in _ARMS.items():
            x, y, _ = figure.keypoints[joints].T
            axis.plot(x, y, color=color, linewidth=2)
            axis.text(
                x[-1], y[-1], name, weight="bold", ha="center", va="center", bbox={"fc": color, "pad": 1}
            )
