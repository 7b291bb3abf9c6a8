"""The images and objects of a data set, checked before anything is trained or evaluated on them.

Detectron2 meets them one by one, in the processes of its data loader: a bad box stops a training after hours,
without a word of where it is; objects without area or outside of their images it drops and clips in silence.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from nl_detectron.errors import UserError

logger = logging.getLogger(__name__)

Record = Mapping[str, object]
MARGIN = 1.0  # pixels that a box may reach outside of its image: rounding
_MASKS = {"polygon": (list,), "bitmask": (list, dict, np.ndarray)}  # by INPUT.MASK_FORMAT


def check_records(name: str, records: Sequence[Record], mask_format: str | None = None) -> None:
    """Refuse what would stop a run or spoil it, and warn of what Detectron2 drops or clips.

    Args:
        name: of the data set.
        records: what `DatasetCatalog.get(name)` returns.
        mask_format: INPUT.MASK_FORMAT where masks are learned from: then all objects must have them, in it.

    Raises:
        UserError: naming the data set, the image file, the object and what is wrong.
    """
    metadata = MetadataCatalog.get(name)
    classes, keypoints = len(metadata.get("thing_classes") or ()), len(metadata.get("keypoint_names") or ())
    objects = [object_ for record in records for object_ in record.get("annotations", ())]
    if mask_format and objects and all(object_.get("segmentation") is None for object_ in objects):
        raise UserError(f"{name} has no masks. Set MODEL.MASK_ON to False.")
    flat: list[str] = []
    outside: list[str] = []
    for index, record in enumerate(records):
        _check_image(name, index, record)
        for number, object_ in enumerate(record.get("annotations", ())):
            if problem := _problem(object_, classes, keypoints, mask_format):
                where = f"{name}: object {number} of {record['file_name']}"
                raise UserError(f"{where}: {problem}. Correct it, or leave the object out.")
            _note_box(record, object_, flat, outside)
    for files, what in ((flat, "have boxes without area; Detectron2 drops them"), (outside, "reach outside")):
        if files:
            logger.warning(
                "%s: %d of %d objects %s: in %s first", name, len(files), len(objects), what, files[0]
            )


def _check_image(name: str, index: int, record: Record) -> None:
    if not record.get("file_name"):
        raise UserError(f"{name}: image {index} has no 'file_name'.")
    sides = [record[side] for side in ("height", "width") if side in record]  # it may have neither
    if len(sides) == 1 or not all(_are_numbers([side]) and side >= 1 for side in sides):
        sizes = f"{record.get('height')!r} and {record.get('width')!r}"
        raise UserError(f"{name}: {record['file_name']} needs a height and a width in pixels; got {sizes}.")


def _problem(object_: Record, classes: int, keypoints: int, mask_format: str | None) -> str:
    """What is wrong with an object; "" if nothing is."""
    box, mode, category = object_.get("bbox"), object_.get("bbox_mode"), object_.get("category_id")
    if mode in (None, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        if mode is None or not _are_numbers(box) or len(box) != 4:
            return f"bbox must be 4 finite numbers with a bbox_mode; got {_short(box)}"
        if min(_corners(object_)[2:] - _corners(object_)[:2]) < 0:  # Detectron2 would swap the corners
            return f"bbox must have sides of 0 or more; got {_short(box)}"
    if not isinstance(category, (int, np.integer)) or not 0 <= category < (classes or math.inf):
        return f"category_id must be from 0 to {classes - 1}, as thing_classes has; got {_short(category)}"
    points, mask = object_.get("keypoints", ()), object_.get("segmentation")
    if keypoints and len(points) and not (_are_numbers(points) and len(points) == 3 * keypoints):
        return f"keypoints must be {3 * keypoints} finite numbers; got {_short(points)}"
    if object_.get("iscrowd"):
        return ""
    if mask_format and not isinstance(mask, _MASKS[mask_format]):
        other = " (or RLE, with INPUT.MASK_FORMAT bitmask)" if mask_format == "polygon" else " or RLE"
        return f"segmentation must be polygons{other}; got {_short(mask)}"
    if isinstance(mask, list) and not all(_are_numbers(p) and len(p) >= 6 and len(p) % 2 == 0 for p in mask):
        return f"segmentation must be polygons of 6 or more finite numbers x, y, ...; got {_short(mask)}"
    return ""


def _corners(object_: Record) -> np.ndarray:
    """x0, y0, x1, y1."""
    x, y, *others = object_["bbox"]
    is_size = object_["bbox_mode"] == BoxMode.XYWH_ABS
    return np.array([x, y, *([x + others[0], y + others[1]] if is_size else others)])


def _note_box(record: Record, object_: Record, flat: list[str], outside: list[str]) -> None:
    """Note the file of a box without area, and of one that reaches outside."""
    if object_["bbox_mode"] not in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
        return
    x0, y0, x1, y1 = _corners(object_)
    if x1 == x0 or y1 == y0:
        flat.append(record["file_name"])
    width, height = record.get("width", math.inf), record.get("height", math.inf)
    if min(x0, y0) < -MARGIN or x1 > width + MARGIN or y1 > height + MARGIN:
        outside.append(record["file_name"])


def _are_numbers(values: object) -> bool:
    kinds = (int, float, np.number)
    is_list = isinstance(values, (Sequence, np.ndarray))
    return is_list and all(isinstance(value, kinds) and math.isfinite(value) for value in values)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]} ..."
