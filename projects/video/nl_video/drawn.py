"""Clips whose class only two far discs decide together, and their near control.

Two discs are red or blue. The class is whether their colors are the same. Within the reach of its kernels and
pools, a network sees that without a block; beyond it, something has to bring the two together. The mean over
all positions that the classifier gets cannot: no linear function tells same from different.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from nl_detectron.files import atomic_write

KINDS = ("near", "far in space", "far in time", "far in both")
FRAMES, SIDE, RADIUS = 16, 64, 7
SHOWN = 2  # frames with a disc: no pool over time sees both the first and the last two
_COLORS = ((220, 40, 40), (40, 70, 220))  # red and blue, in RGB


def draw_clip(kind: str, label: int, rng: np.random.Generator) -> np.ndarray:
    """(FRAMES, SIDE, SIDE, 3) uint8, RGB, of a kind in KINDS, with discs of the same color (0) or not (1).

    "near": side by side in the same frames. "far in space": in the same frames, at opposite sides.
    "far in time": at the same place, in the first and in the last frames.
    "far in both": at opposite sides, in the first and in the last frames.
    """
    first = int(rng.integers(2))
    clip = rng.integers(90, 166, (FRAMES, SIDE, SIDE, 1), dtype=np.uint8).repeat(3, axis=3)
    for (when, center), color in zip(_places(kind, rng), (first, first ^ label), strict=True):
        for frame in clip[when : when + SHOWN]:
            cv2.circle(frame, center, RADIUS, _COLORS[color], cv2.FILLED)
    return clip


def _places(kind: str, rng: np.random.Generator) -> list[tuple[int, tuple[int, int]]]:
    """The first frame and the center (x, y) of either disc."""
    least, most = RADIUS + 1, SIDE - RADIUS - 1
    whens, along = (
        [int(rng.integers(FRAMES - SHOWN + 1))] * 2,
        [int(rng.integers(least, most - 2 * RADIUS + 1))] * 2,
    )
    if kind in ("far in time", "far in both"):
        whens = [0, FRAMES - SHOWN]
    if kind == "near":
        along[1] += 2 * RADIUS
    elif kind != "far in time":
        along = [least, most]
    across = int(rng.integers(least, most + 1))
    centers = [(each, across) for each in rng.permutation(along).tolist()]
    if rng.integers(2):
        centers = [(y, x) for x, y in centers]
    return [*zip(whens, centers, strict=True)]


class DrawnClips(torch.utils.data.Dataset):
    """Clips of given kinds, half of them of either class, as records for `VideoClassifier`.

    A clip is drawn anew, and the same, each time it is asked for.
    """

    def __init__(self, kinds: tuple[str, ...], count: int, seed: int) -> None:
        self.kinds, self.count, self.seed = kinds, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict:
        if index >= self.count:
            raise IndexError(index)  # which ends a loop over the clips
        rng = np.random.default_rng((self.seed, index))
        kind, label = self.kinds[index // 2 % len(self.kinds)], index % 2
        clip = torch.from_numpy(draw_clip(kind, label, rng))
        return {"clips": clip.permute(3, 0, 1, 2)[None], "label": label, "kind": kind}


def write_videos(root: Path, train: int, val: int) -> None:
    """Write clips of all kinds as video files, in Kinetics' layout: root/split/class/number.mp4."""
    import av  # which only this needs

    for split, count, seed in (("train", train, 1), ("val", val, 0)):
        for number, record in enumerate(tqdm(DrawnClips(KINDS, count, seed), desc=f"writing {split}")):
            file = root / split / ("same", "different")[record["label"]] / f"{number:06d}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
                stream = container.add_stream("mpeg4", rate=8)
                stream.height, stream.width, stream.pix_fmt, stream.bit_rate = (
                    SIDE,
                    SIDE,
                    "yuv420p",
                    2_000_000,
                )
                for frame in record["clips"][0].permute(1, 2, 3, 0).numpy():
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.copy(), format="rgb24")))
                container.mux(stream.encode())


def preview() -> Figure:
    """Two clips of each kind, of either class: every other frame."""
    figure = Figure(figsize=(9, 9.6), layout="constrained")
    panels = figure.subplots(2 * len(KINDS), FRAMES // 2)
    for row, (kind, label) in zip(panels, [(kind, label) for kind in KINDS for label in (0, 1)], strict=True):
        clip = draw_clip(kind, label, np.random.default_rng((1, label)))
        for number, axes in zip(range(0, FRAMES, 2), row, strict=True):
            axes.imshow(clip[number])
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(f"{kind}:\n{'different' if label else 'same'}", fontsize=8)
    return figure
