"""The images and objects of a data set, checked before anything is trained or evaluated on them.

Detectron2 meets them one by one, in the processes of its data loader: a box that is none stops a training
after hours, without a word of where it is; what has no area, or lies outside of its image, it drops and clips
in silence.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import NoReturn

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from nl_detectron.errors import UserError

logger = logging.getLogger(__name__)

Record = Mapping[str, object]
MARGIN = 1.0  # pixels that a box or polygon may reach outside of its image: rounding


def check_records(name: str, records: Sequence[Record], mask_format: str | None = None) -> None:
    """Refuse what would stop a run or spoil it, and warn of what Detectron2 drops or clips.

    Args:
        name: of the data set, for its metadata and the messages.
        records: what `DatasetCatalog.get(name)` returns.
        mask_format: INPUT.MASK_FORMAT where masks are learned from: then all objects must have them, in it.

    Raises:
        UserError: naming the data set, the image file, the object and what is wrong.
    """
    _check_images(name, records)
    objects = _Objects(name, records)
    if not len(objects) or not objects.check_boxes():
        return
    objects.check_classes()
    objects.check_keypoints()
    objects.check_segmentations(mask_format)
    objects.warn_of_areas()
    objects.warn_of_outside()


def _check_images(name: str, records: Sequence[Record]) -> None:
    for index, record in enumerate(records):
        if not record.get("file_name"):
            raise UserError(f"{name}: every image must have a 'file_name'; image {index} has none.")
        sides = [record[side] for side in ("height", "width") if side in record]  # neither is right too
        if len(sides) == 1 or not all(_is_number(side) and side >= 1 for side in sides):
            raise UserError(
                f"{name}: {record['file_name']} must have a height and a width in pixels; got "
                f"{record.get('height')!r} and {record.get('width')!r}."
            )


class _Objects:
    """All objects of a data set in one sequence: numpy is fast enough for the 860 000 of COCO."""

    def __init__(self, name: str, records: Sequence[Record]) -> None:
        self.name, self.records = name, records
        annotations = [record.get("annotations", ()) for record in records]
        self.all = list(chain.from_iterable(annotations))
        self.image = np.repeat(np.arange(len(records)), [len(objects) for objects in annotations])
        self.first = np.searchsorted(self.image, self.image)  # object of each one's image

    def __len__(self) -> int:
        return len(self.all)

    def check_boxes(self) -> bool:
        """Four finite numbers each, unless the boxes are of a kind that is not looked into: rotated ones."""
        kinds = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
        modes = {object_.get("bbox_mode") for object_ in self.all}
        if None in modes:
            self._check("bbox_mode", lambda mode: mode is not None, "a BoxMode")
        if not modes.issubset(kinds):
            return False
        boxes = self._numbers("bbox", range(len(self)), 4)
        is_size = np.array([object_["bbox_mode"] == BoxMode.XYWH_ABS for object_ in self.all])
        boxes[is_size, 2:] += boxes[is_size, :2]
        for index in np.flatnonzero(
            (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
        ):  # Detectron2 swaps the corners
            what = f"bbox must have sides of 0 or more; got {self.all[index]['bbox']}."
            self._refuse(index, f"{what} Correct it, or leave the object out.")
        self.boxes = boxes  # (R, 4): x0, y0, x1, y1
        return True

    def check_classes(self) -> None:
        count = len(MetadataCatalog.get(self.name).get("thing_classes") or ()) or np.inf
        rule = f"a whole number from 0 to {count - 1}, as thing_classes has"
        self._check("category_id", lambda k: isinstance(k, (int, np.integer)) and 0 <= k < count, rule)

    def check_keypoints(self) -> None:
        """As many as the data set has names for: x, y and visibility of each."""
        if names := MetadataCatalog.get(self.name).get("keypoint_names"):
            having = [k for k, object_ in enumerate(self.all) if len(object_.get("keypoints", ()))]
            self._numbers("keypoints", having, 3 * len(names))

    def check_segmentations(self, mask_format: str | None) -> None:
        plain = [k for k, object_ in enumerate(self.all) if not object_.get("iscrowd")]
        types = {type(self.all[k].get("segmentation")) for k in plain} if mask_format else {type(None)}
        kinds = {list} if mask_format == "polygon" else {list, dict, np.ndarray}
        if mask_format and types == {type(None)}:
            raise UserError(f"{self.name}: MODEL.MASK_ON must be False for data without masks; got True.")
        if mask_format and not types <= kinds:
            rule = "polygons (or RLE, with INPUT.MASK_FORMAT 'bitmask') in every object"
            self._check("segmentation", lambda mask: type(mask) in kinds, rule, plain)
        self.polygons = [k for k in plain if _is_full_list(self.all[k].get("segmentation"))]
        parts = list(chain.from_iterable(self.all[k]["segmentation"] for k in self.polygons))
        try:
            self.points = np.fromiter(chain.from_iterable(parts), np.float64)
            is_right = np.isfinite(self.points).all() and all(map(_is_polygon_long, parts))
        except (TypeError, ValueError):
            is_right = False
        if not is_right:
            rule = "polygons, each of 6 or more finite numbers x, y, x, y, ..."
            self._check("segmentation", _are_polygons, rule, self.polygons)

    def warn_of_areas(self) -> None:
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        self._warn((sides == 0).any(axis=1), "have boxes without area, which Detectron2 drops in training")

    def warn_of_outside(self) -> None:
        sizes = np.array([(r.get("width", np.inf), r.get("height", np.inf)) for r in self.records], float)
        lows, highs = self.boxes[:, :2].copy(), self.boxes[:, 2:].copy()
        self._widen_by_polygons(lows, highs)
        outside = (lows < -MARGIN) | (highs > sizes[self.image] + MARGIN)
        self._warn(outside.any(axis=1), "reach outside of their images, where Detectron2 clips them")

    def _widen_by_polygons(self, lows: np.ndarray, highs: np.ndarray) -> None:
        if not self.polygons:
            return
        lengths = [sum(map(len, self.all[k]["segmentation"])) // 2 for k in self.polygons]
        points, starts = self.points.reshape(-1, 2), np.cumsum(lengths) - lengths
        low, high = (extreme.reduceat(points, starts) for extreme in (np.minimum, np.maximum))
        lows[self.polygons] = np.minimum(lows[self.polygons], low)
        highs[self.polygons] = np.maximum(highs[self.polygons], high)

    def _numbers(self, field: str, indices: Sequence[int], count: int) -> np.ndarray:
        """(len(indices), count) float64: a field of these objects, which must have so many finite numbers."""
        try:
            numbers = np.array([self.all[k][field] for k in indices])
        except (KeyError, ValueError):  # some are missing, or of another length
            numbers = np.array(None)
        shape = (len(indices), count)
        if numbers.dtype.kind not in "biuf" or numbers.shape != shape or not np.isfinite(numbers).all():
            rule = f"{count} finite numbers"
            self._check(field, lambda value: _are_numbers(value) and len(value) == count, rule, indices)
        return numbers.reshape(shape).astype(np.float64)

    def _check(
        self, field: str, test: Callable[[object], bool], rule: str, indices: Iterable[int] | None = None
    ) -> None:
        for index in range(len(self)) if indices is None else indices:
            value = self.all[index].get(field)
            if not test(value):
                text = repr(value)
                got = text if len(text) < 80 else f"{text[:80]} ..."
                self._refuse(
                    index, f"{field} must be {rule}; got {got}. Correct it, or leave the object out."
                )

    def _refuse(self, index: int, what: str) -> NoReturn:
        file_name = self.records[self.image[index]]["file_name"]
        raise UserError(f"{self.name}: of object {index - self.first[index]} of {file_name}, {what}")

    def _warn(self, which: np.ndarray, what: str) -> None:
        if which.any():
            image = self.records[self.image[which.argmax()]]["file_name"]
            logger.warning(
                "%s: %d of %d objects %s: in %s first", self.name, which.sum(), len(self), what, image
            )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def _are_numbers(values: object) -> bool:
    return isinstance(values, (Sequence, np.ndarray)) and all(map(_is_number, values))


def _is_full_list(value: object) -> bool:
    return isinstance(value, list) and bool(value)


def _is_polygon_long(numbers: Sequence[float]) -> bool:
    return len(numbers) >= 6 and len(numbers) % 2 == 0


def _are_polygons(parts: Sequence[object]) -> bool:
    return all(_are_numbers(part) and _is_polygon_long(part) for part in parts)
