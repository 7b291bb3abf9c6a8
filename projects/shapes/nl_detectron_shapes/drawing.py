"""Drawing the shapes: circles, squares, triangles and stick figures with COCO's 17 keypoints.

All lengths are fractions of the image's side, or of a figure's height. Figures face the viewer, so
that their left is at the right of the image, as in COCO.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

CATEGORIES = ("person", "circle", "square", "triangle")

_OCCLUDED_FIGURES = 0.3  # the fraction of figures with a shape in front of them
_CROWDS = 0.15  # the fraction of images with a crowd of small circles
_TRIES = 20


@dataclass
class Drawn:
    """One object of an image.

    Attributes:
        category: what it is called.
        mask: (H, W) bool, its visible pixels.
        keypoints: (17, 3) int, x, y and COCO's visibility (0 outside the image, 1 occluded, 2
            visible), in COCO's order; None for all but figures.
        iscrowd: whether it is a group rather than one object.
    """

    category: str
    mask: np.ndarray
    keypoints: np.ndarray | None = None
    iscrowd: bool = False


def draw_image(rng: np.random.Generator, side: int) -> tuple[np.ndarray, list[Drawn]]:
    """An image with a crowd at times, up to two figures and a few shapes.

    Args:
        rng: decides everything.
        side: the image's height and width in pixels.

    Returns:
        The image, (side, side, 3) uint8 in BGR order, and its objects, back to front.
    """
    image = np.full((side, side, 3), rng.integers(190, 250, 3), np.uint8)
    drawn: list[Drawn] = []
    if rng.random() < _CROWDS:
        _paint(rng, image, drawn, Drawn("circle", _crowd(rng, side), iscrowd=True))
    for _ in range(rng.integers(0, 3)):
        _place(rng, image, drawn, lambda: _figure(rng, side))
    for _ in range(rng.integers(1, 4)):
        _place(rng, image, drawn, lambda: _shape(rng, side))
    for figure in [d for d in drawn if d.keypoints is not None]:
        visible = figure.keypoints[figure.keypoints[:, 2] == 2]
        if len(visible) and rng.random() < _OCCLUDED_FIGURES:
            _paint(rng, image, drawn, _shape(rng, side, center=rng.choice(visible)[:2]))
    noise = rng.normal(0, 5, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image, [d for d in drawn if d.mask.any()]


def _place(
    rng: np.random.Generator, image: np.ndarray, drawn: list[Drawn], draw: Callable[[], Drawn]
) -> None:
    """Paint what `draw` returns where it hides next to nothing, if there is room."""
    occupied = np.any([d.mask for d in drawn], axis=0) if drawn else np.zeros(image.shape[:2], bool)
    for _ in range(_TRIES):
        new = draw()
        if np.count_nonzero(new.mask & occupied) < 0.03 * np.count_nonzero(new.mask):
            _paint(rng, image, drawn, new)
            return


def _paint(rng: np.random.Generator, image: np.ndarray, drawn: list[Drawn], new: Drawn) -> None:
    """Paint `new` in front of all that is drawn, whose masks and keypoints it then hides."""
    image[new.mask] = rng.integers(0, 160, 3)
    for other in drawn:
        other.mask &= ~new.mask
        if other.keypoints is not None:
            x, y, visibility = other.keypoints.T
            visibility[new.mask[y, x] & (visibility == 2)] = 1
    drawn.append(new)
    if new.keypoints is not None:
        eyes_and_nose = new.keypoints[:3]
        for x, y, visibility in eyes_and_nose:
            if visibility:
                cv2.circle(image, (int(x), int(y)), max(1, len(image) // 150), (255, 255, 255), -1)


def _shape(rng: np.random.Generator, side: int, center: np.ndarray | None = None) -> Drawn:
    """A circle, square or triangle, at `center` (x, y) or anywhere inside the image."""
    radius = rng.uniform(0.07, 0.15) * side
    if center is None:
        center = rng.uniform(radius, side - radius, 2)
    category = CATEGORIES[rng.integers(1, 4)]
    mask = np.zeros((side, side), np.uint8)
    if category == "circle":
        cv2.circle(mask, tuple(map(int, center)), int(radius), 1, -1)
    else:
        corners = 4 if category == "square" else 3
        angles = rng.uniform(0, 2 * np.pi) + np.arange(corners) * 2 * np.pi / corners
        points = center + 1.2 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return Drawn(category, mask.astype(bool))


def _crowd(rng: np.random.Generator, side: int) -> np.ndarray:
    """The mask of a group of small circles."""
    mask = np.zeros((side, side), np.uint8)
    center = rng.uniform(0.2, 0.8, 2)
    for x, y in center + rng.uniform(-0.15, 0.15, (10, 2)):
        cv2.circle(mask, (int(x * side), int(y * side)), int(0.035 * side), 1, -1)
    return mask.astype(bool)


def _figure(rng: np.random.Generator, side: int) -> Drawn:
    """A stick figure, which may stand partly outside the image."""
    height = rng.uniform(0.45, 0.8) * side
    top = rng.uniform((0.12, -0.1), (0.88, 1.05)) * (side, side - height)
    return figure_at(rng, side, height, top)


def figure_at(rng: np.random.Generator, side: int, height: float, top: np.ndarray) -> Drawn:
    """A stick figure in a random pose, `top` (x, y) the middle of its head's upper edge; all in pixels."""
    points = _skeleton(rng) * height + top
    mask = np.zeros((side, side), np.uint8)
    thickness = max(2, round(0.08 * height))
    joints = points.round().astype(np.int32)
    head = (joints[3] + joints[4]) // 2
    cv2.circle(mask, tuple(map(int, head)), round(0.1 * height), 1, -1)
    shoulders, hips = joints[[5, 6]], joints[[12, 11]]
    cv2.fillConvexPoly(mask, np.concatenate([shoulders, hips]), 1)
    neck = (joints[5] + joints[6]) // 2
    limbs = [(5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16), (5, 6)]
    lines = [(joints[a], joints[b]) for a, b in limbs] + [(head, neck)]
    for start, end in lines:
        cv2.line(mask, tuple(map(int, start)), tuple(map(int, end)), 1, thickness)
    inside = ((joints >= 0) & (joints < side)).all(axis=1)
    keypoints = np.column_stack([joints, np.full(17, 2)]) * inside[:, None]
    return Drawn("person", mask.astype(bool), keypoints)


def _skeleton(rng: np.random.Generator) -> np.ndarray:
    """(17, 2) x, y of COCO's keypoints in a random pose, in heights from the figure's top middle."""

    def chain(start: np.ndarray, angles: np.ndarray, length: float) -> list[np.ndarray]:
        """Two joints down from `start`, at `angles` from straight down."""
        steps = length * np.stack([np.sin(angles), np.cos(angles)], axis=1)
        return list(start + np.cumsum(steps, axis=0))

    face = [(0, 0.12), (0.035, 0.08), (-0.035, 0.08), (0.09, 0.1), (-0.09, 0.1)]
    shoulders = np.array([(0.14, 0.26), (-0.14, 0.26)])
    hips = np.array([(0.09, 0.55), (-0.09, 0.55)])
    arms, legs = [], []
    for shoulder, hip, outward in zip(shoulders, hips, (1, -1), strict=True):
        arm = rng.uniform(0.3, 2.4) + np.array([0, rng.uniform(-0.6, 0.6)])
        leg = rng.uniform(0.05, 0.45) + np.array([0, rng.uniform(-0.3, 0.1)])
        arms.append(chain(shoulder, outward * arm, 0.16))
        legs.append(chain(hip, outward * leg, 0.21))
    elbows_and_wrists = [arms[s][joint] for joint in (0, 1) for s in (0, 1)]
    knees_and_ankles = [legs[s][joint] for joint in (0, 1) for s in (0, 1)]
    return np.array([*face, *shoulders, *elbows_and_wrists, *hips, *knees_and_ankles])
