"""Masks of a COCO file: lists of polygons, or RLE."""

import math
from itertools import chain

import numpy as np
from detectron2.structures.masks import polygon_area
from pycocotools import mask as rle

from .findings import Entry


def are_numbers(values: object, count: int) -> bool:
    """Whether these are `count` finite numbers. Summing them is the fastest way to see it."""
    try:
        return isinstance(values, list) and len(values) == count and math.isfinite(sum(values))
    except (TypeError, OverflowError):
        return False


def are_polygons(mask: object) -> bool:
    """Whether this is a list of polygons x, y, x, y, ... of three points or more."""
    try:
        are_long = type(mask) is list and mask and all(len(p) >= 6 and len(p) % 2 == 0 for p in mask)
        return bool(are_long) and math.isfinite(sum(map(sum, mask)))
    except (TypeError, OverflowError):
        return False


def is_point(polygons: list[list[float]]) -> bool:
    """Whether all points are one: a mask that some write where there is none."""
    return len(set(polygons[0])) <= 2 and not any(box_of(polygons)[2:])


def as_polygons(mask: object) -> list[list[float]] | None:
    """Polygons of a flat list, of a list of points, or of lists of points; short ones are left out.

    What is neither is left as it is.
    """
    if not isinstance(mask, list):
        return None
    if all(isinstance(value, (int, float)) or are_numbers(value, 2) for value in mask):
        mask = [mask]  # not nested
    are_points = [isinstance(part, list) and all(are_numbers(each, 2) for each in part) for part in mask]
    parts = [[*chain(*part)] if points else part for part, points in zip(mask, are_points, strict=True)]
    return [
        part
        for part in parts
        if not isinstance(part, list) or len(part) >= 6 or not are_numbers(part, len(part))
    ]


def count_pixels(mask: Entry) -> int | None:
    """How many pixels an RLE covers; None if its runs are not as long together as its size says."""
    counts, (height, width) = mask.get("counts"), mask["size"]
    try:
        runs = np.asarray(counts if isinstance(counts, list) else _decode_runs(counts))
        is_right = runs.ndim == 1 and runs.sum() == height * width and (runs >= 0).all()
        return int(runs[1::2].sum()) if is_right else None
    except (TypeError, ValueError, AttributeError):
        return None


def _decode_runs(counts: str) -> np.ndarray:
    """The lengths of the runs in COCO's compressed RLE: `rleFrString` of pycocotools, which trusts them."""
    codes = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1 or codes.min() < 0 or codes.max() > 63:
        raise ValueError("not a compressed RLE")
    starts = np.r_[0, ends[:-1] + 1]
    bits = 5 * (np.arange(len(codes)) - np.repeat(starts, ends - starts + 1))  # 5 in each character
    values = np.add.reduceat((codes & 31) << bits, starts)
    values -= np.where(codes[ends] & 16, 32 << bits[ends], 0)  # the sign
    for first in (1, 2):  # from the fourth, a value is the difference from the run before the last
        values[first::2] = values[first::2].cumsum()
    return values


def box_of(mask: Entry | list[list[float]]) -> list[float]:
    """The box x, y, width, height around a right mask."""
    if isinstance(mask, dict):
        return rle.toBbox(_compressed(mask)).tolist()
    x, y = (np.concatenate([part[axis::2] for part in mask]).astype(float) for axis in (0, 1))
    return [float(value) for value in (x.min(), y.min(), np.ptp(x), np.ptp(y))]


def area_of(mask: Entry | list[list[float]]) -> float:
    """The area of a right mask; parts that overlap count twice."""
    if isinstance(mask, dict):
        return float(rle.area(_compressed(mask)))
    return float(sum(polygon_area(np.array(part[::2]), np.array(part[1::2])) for part in mask))


def _compressed(mask: Entry) -> Entry:
    return rle.frPyObjects(mask, *mask["size"]) if isinstance(mask["counts"], list) else mask
