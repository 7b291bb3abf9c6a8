"""What a model has that sees everything but the disc: perfect boxes and points, with guessed labels."""

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
Guess = Callable[[np.random.Generator, dict], Iterator[dict]]


def chance_table(datasets: Path) -> str:
    """A row for each way of guessing on the far test pictures, ± the spread over guesses."""
    annotations = datasets / dataset_name("far") / "annotations"
    ways = {
        "one category for each figure": ("instances", "bbox", _one_category),
        "both categories for each figure": ("instances", "bbox", _both_categories),
        "left and right": ("person_keypoints", "keypoints", _left_and_right),
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
    rng = np.random.default_rng(seed)
    found = [
        {"image_id": each["image_id"], "score": rng.random()} | detected
        for each in truth.dataset["annotations"]
        for detected in guess(rng, each)
    ]
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


def _left_and_right(rng: np.random.Generator, annotation: dict) -> Iterator[dict]:
    points = np.array(annotation["keypoints"]).reshape(-1, 3)
    guessed = points[SWAPPED] if rng.integers(2) else points
    yield {"keypoints": guessed.flatten().tolist(), "category_id": annotation["category_id"]}
