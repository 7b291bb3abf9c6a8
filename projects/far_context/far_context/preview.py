"""A picture of far and near pairs with their labels."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nl_detectron_shapes import Drawn

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

from .pictures import SIZE, draw_pair

_SEED = 38  # its first pair has one figure at the left, the second has two at the right
_PAIRS = 2
_TITLES = ("far: the disc at the other side tells", "near: the disc beside each figure tells")
_ARMS = {"L": ([5, 7, 9], "orange"), "R": ([6, 8, 10], "cyan")}  # COCO's shoulder, elbow and wrist


def write_preview(file: Path) -> None:
    """Write the picture to a file.

    Raises:
        UserError: if matplotlib cannot write files of its suffix.
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(10, 2.9 * _PAIRS), layout="constrained")
    if file.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise UserError(f"--preview {file}: matplotlib cannot write {file.suffix!r} files. Use .png or .jpg.")
    for near, half in enumerate(figure.subfigures(1, 2, wspace=0.03)):
        half.suptitle(_TITLES[near], weight="bold")
        for row, axes in enumerate(half.subplots(_PAIRS, 2)):
            pair = draw_pair(np.random.default_rng([_SEED, 0, row]), SIZE, near=bool(near))
            for axis, (image, figures) in zip(axes, pair, strict=True):
                axis.imshow(image[:, :, ::-1])
                axis.set(xticks=[], yticks=[], title=figures[0].category)
                _label(axis, figures)
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, dpi=100)


def _label(axis: Axes, figures: list[Drawn]) -> None:
    for figure in figures:
        for name, (joints, color) in _ARMS.items():
            x, y, _ = figure.keypoints[joints].T
            axis.plot(x, y, color=color, linewidth=2)
            style = {"weight": "bold", "ha": "center", "va": "center", "bbox": {"fc": color, "pad": 1}}
            axis.text(x[-1], y[-1], name, **style)
