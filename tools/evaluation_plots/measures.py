"""Precision over recall by COCO's evaluation, and the confusions between categories."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pycocotools.mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

TASKS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # and the key that each needs
Detections = list[dict[str, object]]  # in COCO's format of results


def precision_of(truth: COCO, detections: Detections, task: str, sigmas: Sequence[float]) -> np.ndarray:
    """COCO's precision: (10 IoUs, 101 recalls, K categories), -1 for a category without objects."""
    dropped = "bbox" if task == "segm" else ""  # with boxes, masks would have their areas
    copies = [{key: each[key] for key in each if key != dropped} for each in detections]  # loadRes adds keys
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(copies), task)
        if task == "keypoints" and sigmas:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0, -1]  # of all areas, with the most detections per image


def count_confusions(truth: COCO, detections: Detections, min_score: float, min_iou: float) -> np.ndarray:
    """(K + 1, K + 1) boxes: a row for each category of objects, then background; a column for each category
    of detections, then missed.

    A detection is matched to one object, and an object to one detection: pairs of one category first, then by
    IoU. Crowds, and detections in a crowd of their category, are not counted.
    """
    order = {category: k for k, category in enumerate(sorted(truth.cats))}
    counts = np.zeros((len(order) + 1, len(order) + 1), dtype=int)
    by_image = defaultdict(list)
    for each in detections:
        if each["score"] >= min_score:
            by_image[each["image_id"]].append(each)
    for image in truth.imgs:
        objects, found = truth.imgToAnns[image], by_image[image]
        rows, columns = ([order[each["category_id"]] for each in part] for part in (objects, found))
        crowds = [each.get("iscrowd", 0) for each in objects]
        boxes = ([each["bbox"] for each in part] for part in (found, objects))
        ious = np.reshape(pycocotools.mask.iou(*boxes, crowds), (len(found), len(objects)))
        pairs = [(d, o, columns[d] == rows[o]) for d, o in np.argwhere(ious >= min_iou).tolist()]
        missed, unmatched = {o for o, crowd in enumerate(crowds) if not crowd}, {*range(len(found))}
        for d, o, _ in sorted(pairs, key=lambda pair: (not pair[2], -ious[pair[:2]])):
            if d in unmatched and o in missed:
                counts[rows[o], columns[d]] += 1
                unmatched.remove(d)
                missed.remove(o)
        for o in missed:
            counts[rows[o], -1] += 1
        for d in unmatched - {d for d, o, same in pairs if same and crowds[o]}:
            counts[-1, columns[d]] += 1
    return counts
