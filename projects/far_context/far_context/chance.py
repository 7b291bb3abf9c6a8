"""What a model would score that sees everything but the disc: perfect boxes and points, with guessed labels.

The two pictures of a pair differ only in the disc, so they get the same guess.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from .labels import SWAPPED
from .pictures import dataset_name
from .tables import mean_and_deviation

_REPETITIONS = 20
_CATEGORIES = (1, 2)  # front and back
_SHOULDERS = [5, 6]  # COCO's left and right one
Guess = Callable[[np.random.Generator, dict], list[dict]]  # the detections for an annotation


def chance_table(datasets: Path) -> str:
    """A row for each way of guessing on the far test pictures, with the deviation over the guesses."""
    annotations = datasets / dataset_name("far") / "annotations"
    kinds = {"bbox": ("instances", "box AP"), "keypoints": ("person_keypoints", "keypoint AP")}
    rows = []
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        for name, (task, guess) in _WAYS.items():
            kind, label = kinds[task]
            truth = COCO(str(annotations / f"{kind}_val.json"))
            values = [average_precision(truth, task, guess, seed) for seed in range(_REPETITIONS)]
            rows.append([name, label, mean_and_deviation(values)])
    return tabulate(rows, ["guessed", "", "AP"], "github", disable_numparse=True)


def average_precision(truth: COCO, task: str, guess: Guess, seed: int) -> float:
    """The AP of guesses, in per cent. Their confidences are random too."""
    found = []
    for image in sorted(truth.getImgIds()):
        rng = np.random.default_rng((seed, image // 2))
        for annotation in truth.loadAnns(truth.getAnnIds(image)):
            guesses = guess(rng, annotation)
            found += [{"image_id": image, "score": rng.random()} | each for each in guesses]
    evaluation = COCOeval(truth, truth.loadRes(found), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats[0]


def one_category(rng: np.random.Generator, annotation: dict) -> list[dict]:
    return [{"bbox": annotation["bbox"], "category_id": int(rng.choice(_CATEGORIES))}]


def both_categories(_: np.random.Generator, annotation: dict) -> list[dict]:
    return [{"bbox": annotation["bbox"], "category_id": category} for category in _CATEGORIES]


def side_of_figure(rng: np.random.Generator, annotation: dict) -> list[dict]:
    return _seen_from(np.repeat(rng.integers(2), len(SWAPPED)), annotation)


def side_of_each_point(rng: np.random.Generator, annotation: dict) -> list[dict]:
    return _seen_from(rng.integers(2, size=len(SWAPPED)), annotation)


def _seen_from(sides: np.ndarray, annotation: dict) -> list[dict]:
    """The keypoints of a figure, each as if seen from the front (0) or from the back (1)."""
    points = np.array(annotation["keypoints"]).reshape(-1, 3)
    views = [points, points[SWAPPED]]
    front, back = sorted(views, key=lambda view: view[_SHOULDERS, 0].tolist(), reverse=True)
    guessed = np.where(sides[:, None] == 0, front, back)
    return [{"keypoints": guessed.flatten().tolist(), "category_id": annotation["category_id"]}]


_WAYS = {
    "one category for each figure": ("bbox", one_category),
    "both categories for each figure": ("bbox", both_categories),
    "left and right for each figure": ("keypoints", side_of_figure),
    "left and right for each keypoint": ("keypoints", side_of_each_point),
}
