"""The images and objects of a data set, checked before anything is trained or evaluated on them.

Detectron2 meets them one by one, in the workers of its data loader: a bad box stops a training after hours
without a word of where it is.
"""

import math
import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from nl_detectron.errors import UserError

Record = Mapping[str, object]
_MASKS = {"polygon": (list,), "bitmask": (list, dict, np.ndarray)}  # by INPUT.MASK_FORMAT


def check_records(name: str, records: Sequence[Record], mask_format: str | None = None) -> None:
    """Refuse what would stop or spoil a run.

    Args:
        name: of the data set.
        records: what `DatasetCatalog.get(name)` returns.
        mask_format: INPUT.MASK_FORMAT if masks are trained: then all objects need them, in this format.

    Raises:
        UserError: naming the data set, the image file, the object and what is wrong.
    """
    metadata = MetadataCatalog.get(name)
    classes, keypoints = len(metadata.get("thing_classes") or ()), len(metadata.get("keypoint_names") or ())
    objects = [(r, k, o) for r in records for k, o in enumerate(r.get("annotations", ()))]
    if mask_format and objects and all(object_.get("segmentation") is None for *_, object_ in objects):
        raise UserError(f"{name} has no masks. Set MODEL.MASK_ON to False.")
    for record, number, object_ in objects:
        if problem := _problem(object_, classes, keypoints, mask_format):
            where = f"{name}: object {number} of {record['file_name']}"
            raise UserError(f"{where}: {problem}. Correct it, or leave the object out.")


def _problem(object_: Record, classes: int, keypoints: int, mask_format: str | None) -> str:
    """What is wrong with an object; "" if nothing is."""
    box, category, mask = object_.get("bbox"), object_.get("category_id"), object_.get("segmentation")
    mode, points = object_.get("bbox_mode"), object_.get("keypoints", ())
    if mode in (None, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        if mode is None or not _are_numbers(box) or len(box) != 4:
            return f"bbox must be 4 finite numbers with a bbox_mode; got {reprlib.repr(box)}"
        x, y, *sides = box
        if mode == BoxMode.XYXY_ABS:
            sides = sides[0] - x, sides[1] - y
        if min(sides) < 0:
            return f"bbox must have sides of 0 or more; got {reprlib.repr(box)}"
    if not isinstance(category, (int, np.integer)) or not 0 <= category < (classes or math.inf):
        rule = f"from 0 to {classes - 1}, as in thing_classes" if classes else "an integer from 0"
        return f"category_id must be {rule}; got {category!r}"
    has_points = keypoints and points is not None and len(points)
    if has_points and not (_are_numbers(points) and len(points) == 3 * keypoints):
        return f"keypoints must be {3 * keypoints} finite numbers; got {reprlib.repr(points)}"
    if object_.get("iscrowd"):
        return ""
    if mask_format and not isinstance(mask, _MASKS[mask_format]):
        other = " (or RLE, with INPUT.MASK_FORMAT bitmask)" if mask_format == "polygon" else " or RLE"
        return f"segmentation must be polygons{other}; got {reprlib.repr(mask)}"
    if isinstance(mask, list) and not all(_are_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in mask):
        return (
            f"segmentation must be polygons of 6 or more finite numbers x, y, ...; got {reprlib.repr(mask)}"
        )
    return ""


def _are_numbers(values: object) -> bool:
    kinds = (int, float, np.number)
    is_list = isinstance(values, (Sequence, np.ndarray))
    return is_list and all(isinstance(value, kinds) and math.isfinite(value) for value in values)
