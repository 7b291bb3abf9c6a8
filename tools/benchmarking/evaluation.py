"""faster-coco-eval against pycocotools, on made-up detections: the largest difference of AP, and the times.

python tools/benchmarking/evaluation.py --images 5000
"""

import contextlib
import io
import time
from argparse import ArgumentParser

import numpy as np
import pycocotools.mask
from faster_coco_eval.core.faster_eval_api import COCOeval as CompiledCOCOeval
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

SIZE, CLASSES, OBJECTS, DETECTIONS = 640, 80, 7, 33  # pixels, and about as many an image as in val2017
Entry = dict[str, object]


def make_up(images: int) -> tuple[COCO, list[Entry]]:
    """The truth, with crowds, and detections that are off by some pixels, with equal scores among them."""
    random, objects, found = np.random.default_rng(0), [], []
    for image in range(1, images + 1):
        for _ in range(OBJECTS):
            x, y, width, height = random.uniform(20, 300, 4)
            points = np.column_stack([random.uniform(x, x + width, 17), random.uniform(y, y + height, 17)])
            entry = {"image_id": image, "category_id": int(random.integers(1, CLASSES + 1))}
            shape = {"bbox": [x, y, width, height], "area": width * height, "num_keypoints": 17}
            shape |= {"segmentation": _rectangle(x, y, width, height), "keypoints": _flat(points)}
            objects.append({**entry, **shape, "id": len(objects) + 1, "iscrowd": int(random.random() < 0.05)})
        for k in random.integers(1, OBJECTS + 1, DETECTIONS):
            near, move = objects[-k], random.normal(0, 8, 2)
            x, y = near["bbox"][:2] + move
            box = [x, y, *near["bbox"][2:]]
            points = np.reshape(near["keypoints"], (17, 3))[:, :2] + move
            kind = near["category_id"] if random.random() < 0.8 else int(random.integers(1, CLASSES + 1))
            result = {"image_id": image, "category_id": kind, "score": round(random.random(), 2)}
            found.append(
                {**result, "bbox": box, "segmentation": _rectangle(*box), "keypoints": _flat(points)}
            )
    truth = COCO()
    truth.dataset = {
        "annotations": objects,
        "categories": [{"id": k + 1, "name": str(k)} for k in range(CLASSES)],
    }
    truth.dataset["images"] = [{"id": k + 1, "width": SIZE, "height": SIZE} for k in range(images)]
    truth.createIndex()
    truth.cat_img_map = truth.cats  # as nl_detectron.compat has it
    return truth, found


def _rectangle(x: float, y: float, width: float, height: float) -> Entry:
    corners = [[x, y, x + width, y, x + width, y + height, x, y + height]]
    return pycocotools.mask.frPyObjects(corners, SIZE, SIZE)[0]


def _flat(points: np.ndarray) -> list[float]:
    return np.column_stack([points, np.full(len(points), 2.0)]).ravel().tolist()


def precision(kind: type[COCOeval], truth: COCO, found: list[Entry], task: str) -> tuple[np.ndarray, float]:
    """COCO's array of precisions, and the seconds until it is there."""
    dropped = "bbox" if task == "segm" else ""  # as Detectron2 does
    results = truth.loadRes([{key: each[key] for key in each if key != dropped} for each in found])
    start = time.perf_counter()
    evaluation = kind(truth, results, task)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"], time.perf_counter() - start


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    images, rows = parser.parse_args().images, []
    with contextlib.redirect_stdout(io.StringIO()):
        truth, found = make_up(images)
        for task in ("bbox", "segm", "keypoints"):
            (theirs, slow), (ours, fast) = (
                precision(kind, truth, found, task) for kind in (COCOeval, CompiledCOCOeval)
            )
            valid = theirs[theirs > -1]
            rows.append([task, 100 * valid.mean(), np.abs(theirs - ours).max(), slow, fast, slow / fast])
    header = [
        "task",
        "mean precision",
        "largest difference",
        "pycocotools, s",
        "faster-coco-eval, s",
        "ratio",
    ]
    print(tabulate(rows, header, "github", floatfmt=("", ".1f", ".1e", ".1f", ".1f", ".1f")))


if __name__ == "__main__":
    main()
