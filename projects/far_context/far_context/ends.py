"""Long figures: what decides lies inside a figure's own box, but at its other end.

A figure is an upright bar with two arms at one end, at the top or the bottom, and two knobs. Its keypoints
are COCO's shoulders, elbows and wrists. The color of a knob says which arm is the left one, by the rule of
`pictures.py`: that of the knob at the other end ("far") or, as a control, of the one close to the arms
("near"). The other knob is grey, so that far and near figures have the same shape and the same box.

All lengths are fractions of the picture's width.
"""

import cv2
import numpy as np
from nl_detectron_shapes import Drawn

from .labels import CATEGORIES, COLORS, SWAPPED, opposite

_LENGTH = (0.66, 0.78)
_ARM = 0.11
_KNOB = 0.045  # radius
_NEAR = 0.16  # from the arms to the near knob
_COLUMNS = ([(0.17, 0.83)], [(0.17, 0.33), (0.67, 0.83)])  # where the bars of one or two figures are
_GREY_KNOB = (150, 150, 150)
_JOINTS = ([5, 7, 9], [6, 8, 10])  # COCO's left and right shoulder, elbow and wrist

Picture = tuple[np.ndarray, list[Drawn]]


def draw_ends(rng: np.random.Generator, side: int, *, near: bool) -> tuple[Picture, Picture]:
    """Draw one or two long figures twice; in the second picture all knobs have the opposite color.

    Args:
        rng: decides everything but which of a figure's knobs is colored.
        side: the width and height in pixels.

    Returns:
        As `pictures.draw_pair`.
    """
    image = np.full((side, side, 3), rng.integers(190, 250), np.uint8)
    figures = [_figure(rng, side, rng.uniform(*column)) for column in _COLUMNS[rng.integers(2)]]
    for figure, _ in figures:
        image[figure.mask] = rng.integers(0, 110)
    noise = rng.normal(0, 5, image.shape)
    one = [CATEGORIES[k] for k in rng.integers(2, size=len(figures))]

    def picture(categories: list[str]) -> Picture:
        painted, drawn = image.copy(), []
        for (figure, knobs), category in zip(figures, categories, strict=True):
            colors = (COLORS[category], _GREY_KNOB) if near else (_GREY_KNOB, COLORS[category])
            for knob, color in zip(knobs, colors, strict=True):
                cv2.circle(painted, knob, round(_KNOB * side), color, -1)
            order = SWAPPED if category == "back" else slice(None)
            drawn.append(Drawn(category, figure.mask, figure.keypoints[order]))
        return np.clip(painted + noise, 0, 255).astype(np.uint8), drawn

    return picture(one), picture([opposite(category) for category in one])


def _figure(rng: np.random.Generator, side: int, x: float) -> tuple[Drawn, list[tuple[int, int]]]:
    """A figure as if seen from the front, and the centers of its knobs, the near one first."""
    length = rng.uniform(*_LENGTH)
    first = rng.uniform(0.06, 0.94 - length)
    arms, other = np.array([first, first + length])[:: rng.choice((1, -1))]
    heights = (arms, arms + np.sign(other - arms) * _NEAR, other)
    middle, *knobs = [(round(x * side), round(y * side)) for y in heights]
    keypoints, mask = np.zeros((17, 3), int), np.zeros((side, side), np.uint8)
    thickness = round(0.03 * side)
    cv2.line(mask, middle, knobs[1], 1, thickness)
    for joints, outwards in zip(_JOINTS, (1, -1), strict=True):  # its left is at the right of the picture
        wrist = np.array([outwards * _ARM, rng.uniform(-0.03, 0.03)]) * side
        for joint, share in zip(joints, (0.4, 0.7, 1.0), strict=True):
            keypoints[joint] = [*(middle + share * wrist).round(), 2]
        cv2.line(mask, middle, keypoints[joints[-1], :2].tolist(), 1, thickness)
    for knob in knobs:
        cv2.circle(mask, knob, round(_KNOB * side), 1, -1)
    return Drawn(CATEGORIES[0], mask.astype(bool), keypoints), knobs
