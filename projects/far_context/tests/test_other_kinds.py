"""Pictures with a disc for each figure, and long figures: each has its own rule, and nothing else tells."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from far_context.ends import draw_ends
from far_context.evaluation import disc_at, disc_of
from far_context.labels import SWAPPED
from far_context.pictures import MARGIN, MODES, SIZE, draw_kind, register_pictures, write_pictures
from nl_detectron_shapes import Drawn

KINDS = ("own", "ends")


def color_in(image: np.ndarray, where: np.ndarray) -> str:
    """The category that the color of a disc says."""
    blue, _, red = image[where].mean(0)
    assert abs(red - blue) > 100
    return "front" if red > blue else "back"


def middle(figure: Drawn) -> float:
    return np.nonzero(figure.mask)[0].mean()


@pytest.mark.parametrize("near", [False, True])
def test_each_figure_has_its_own_disc(near: bool) -> None:
    """In its half of the picture, and far ones as far away as a single disc is."""
    for seed in range(20):
        for image, figures in draw_kind("own", np.random.default_rng(seed), SIZE, near=near):
            assert len(figures) == 2
            for figure in figures:
                disc = disc_at(middle(figure), image)
                assert color_in(image, disc) == figure.category
                assert disc.sum() == pytest.approx(np.pi * round(0.07 * SIZE) ** 2, rel=0.1)
                distance = cv2.distanceTransform((~disc).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                assert (distance[figure.mask].min() > MARGIN * SIZE) is not near


@pytest.mark.parametrize("kind", KINDS)
def test_pairs_have_opposite_labels(kind: str) -> None:
    """All combinations occur; masks are the same, and left and right are exchanged."""
    seen = Counter()
    for seed in range(60):
        (one, figures), (other, others) = draw_kind(kind, np.random.default_rng(seed), SIZE, near=False)
        seen[tuple(figure.category for figure in figures)] += 1
        for figure, opposite in zip(figures, others, strict=True):
            assert {figure.category, opposite.category} == {"front", "back"}
            assert np.array_equal(figure.mask, opposite.mask)
            assert np.array_equal(figure.keypoints[SWAPPED], opposite.keypoints)
        differ = (one != other).any(2)
        assert not (differ & ~disc_of(one)).any()
    assert len(seen) == {"own": 4, "ends": 6}[kind]
    assert min(seen.values()) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_near_and_far_differ_only_in_what_is_colored(kind: str) -> None:
    for seed in range(10):
        fars, nears = (
            draw_kind(kind, np.random.default_rng(seed), SIZE, near=near) for near in (False, True)
        )
        for (far, figures), (near, others) in zip(fars, nears, strict=True):
            elsewhere = ~cv2.dilate((disc_of(far) | disc_of(near)).astype(np.uint8), np.ones((3, 3))).astype(
                bool
            )
            assert np.array_equal(far[elsewhere], near[elsewhere])
            for figure, same in zip(figures, others, strict=True):
                assert figure.category == same.category
                assert np.array_equal(figure.mask, same.mask)
                assert np.array_equal(figure.keypoints, same.keypoints)


@pytest.mark.parametrize("near", [False, True])
def test_a_knob_of_a_long_figure_decides(near: bool) -> None:
    """Inside its box: close to the arms, or at the other end, half of the picture away from all joints."""
    for seed in range(20):
        for image, figures in draw_ends(np.random.default_rng(seed), SIZE, near=near):
            for figure in figures:
                knob = disc_of(image) & figure.mask
                assert color_in(image, knob) == figure.category
                joints = figure.keypoints[figure.keypoints[:, 2] > 0, :2]
                assert len(joints) == 6
                assert figure.mask[joints[:, 1], joints[:, 0]].all()
                left, right = figure.keypoints[[9, 10], 0]
                assert (left > right) == (figure.category == "front")
                distance = cv2.distanceTransform((~knob).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                to_joints = distance[joints[:, 1], joints[:, 0]]
                assert (to_joints.max() < 0.2 * SIZE) if near else (to_joints.min() > 0.5 * SIZE)


@pytest.mark.parametrize("mode", MODES)
def test_a_flip_keeps_the_rule_of_long_figures(mode: str, tmp_path: Path, flipped: Callable) -> None:
    write_pictures(tmp_path, mode, train=8, val=2, kind="ends")
    register_pictures(tmp_path)
    for image, figures in flipped(f"keypoints_shapes_ends_{mode}_train"):
        boxes, points = figures.gt_boxes.tensor.int().tolist(), figures.gt_keypoints.tensor
        for (left, top, right, bottom), joints in zip(boxes, points, strict=True):
            inside = np.zeros(image.shape[:2], bool)
            inside[top:bottom, left:right] = True
            front = color_in(image, disc_of(image) & inside) == "front"
            assert front == (joints[9, 0] > joints[10, 0]).item()
