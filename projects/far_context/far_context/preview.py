"""A picture of far and near pairs of a kind with their labels."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nl_detectron_shapes import Drawn

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

from .pictures import SIZE, draw_kind

_SEED = 38  # of the kind "one", its first pair has one figure at the left, the second two at the right
_PAIRS = 2
_TITLES = {
    "one": ("far: the disc at the other side tells", "near: the disc beside each figure tells"),
    "own": ("far: each figure's own disc tells", "near: the disc beside each figure tells"),
    "ends": ("far: the knob at the other end tells", "near: the knob close to the arms tells"),
}
_ARMS = {"L": ([5, 7, 9], "orange"), "R": ([6, 8, 10], "cyan")}  # COCO's shoulder, elbow and wrist


def write_preview(file: Path, kind: str = "one") -> None:
    """Write the picture to a file.

    Args:
        kind: of the pictures, one of KINDS.

    Raises:
        UserError: if matplotlib cannot write files of its suffix.
        OSError: if the file cannot be written.
    """
    figure = Figure(figsize=(10, 2.9 * _PAIRS), layout="constrained")
    if file.suffix[1:] not in figure.canvas.get_supported_filetypes():
        raise UserError(f"--preview {file}: matplotlib cannot write {file.suffix!r} files. Use .png or .jpg.")
    for near, half in enumerate(figure.subfigures(1, 2, wspace=0.03)):
        half.suptitle(_TITLES[kind][near], weight="bold")
        for row, axes in enumerate(half.subplots(_PAIRS, 2)):
            pair = draw_kind(kind, np.random.default_rng([_SEED, 0, row]), SIZE, near=bool(near))
            for axis, (image, figures) in zip(axes, pair, strict=True):
                axis.imshow(image[:, :, ::-1])
                categories = dict.fromkeys(figure.category for figure in figures)
                axis.set(xticks=[], yticks=[], title=" and ".join(categories))
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
