"""What a model has that sees everything but the disc: perfect boxes and points, with guessed labels.

The pictures of a pair are the same without the disc, and so is what is guessed.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from nl_detectron.data import dataset_name
from nl_detectron.data.far import SWAPPED
from nl_detectron.results import mean_score

GUESSES = 20  # times
_CATEGORIES = (1, 2)  # front and back
_SHOULDERS = [5, 6]  # of COCO's keypoints, left and right
Guess = Callable[[np.random.Generator, dict], Iterator[dict]]


def chance_table(datasets: Path) -> str:
    """A row for each way of guessing on the far test pictures, ± the spread over guesses."""
    annotations = datasets / dataset_name("far") / "annotations"
    ways = {
        "one category for each figure": ("instances", "bbox", _one_category),
        "both categories for each figure": ("instances", "bbox", _both_categories),
        "left and right for each figure": ("person_keypoints", "keypoints", _figures_side),
        "left and right for each keypoint": ("person_keypoints", "keypoints", _each_points_side),
    }
    names = {"bbox": "box AP", "keypoints": "keypoint AP"}
    rows = []
    for name, (kind, task, guess) in ways.items():
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says how long it takes
            truth = COCO(str(annotations / f"{kind}_val.json"))
            values = [average_precision(truth, task, guess, seed) for seed in range(GUESSES)]
        rows.append([name, names[task], mean_score(values)])
    return tabulate(rows, ["guessed", "", "AP"], "github", disable_numparse=True)


def average_precision(truth: COCO, task: str, guess: Guess, seed: int) -> float:
    """AP in per cent of guesses, with confidences that are as random as they are."""
    found = []
    for image in sorted(truth.getImgIds()):
        rng = np.random.default_rng((seed, image // 2))
        for annotation in truth.loadAnns(truth.getAnnIds(image)):
            guessed = guess(rng, annotation)
            found += [{"image_id": image, "score": rng.random()} | detected for detected in guessed]
    evaluation = COCOeval(truth, truth.loadRes(found), task)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * evaluation.stats[0]


def _one_category(rng: np.random.Generator, annotation: dict) -> Iterator[dict]:
    yield {"bbox": annotation["bbox"], "category_id": int(rng.choice(_CATEGORIES))}


def _both_categories(_: np.random.Generator, annotation: dict) -> Iterator[dict]:
    for category in _CATEGORIES:
        yield {"bbox": annotation["bbox"], "category_id": category}


def _figures_side(rng: np.random.Generator, annotation: dict) -> Iterator[dict]:
    yield from _sides(annotation, np.repeat(rng.integers(2), len(SWAPPED)))


def _each_points_side(rng: np.random.Generator, annotation: dict) -> Iterator[dict]:
    yield from _sides(annotation, rng.integers(2, size=len(SWAPPED)))


def _sides(annotation: dict, which: np.ndarray) -> Iterator[dict]:
    """The points, each as in a figure that is seen from the front (0) or from the back (1)."""
    points = np.array(annotation["keypoints"]).reshape(-1, 3)
    front, back = sorted(
        (points, points[SWAPPED]), key=lambda each: each[_SHOULDERS, 0].tolist(), reverse=True
    )
    guessed = np.stack([front, back])[which, range(len(which))]
    yield {"keypoints": guessed.flatten().tolist(), "category_id": annotation["category_id"]}
