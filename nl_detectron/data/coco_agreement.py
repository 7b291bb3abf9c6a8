"""Whether the boxes of a COCO file are in their images, and where their masks and keypoints are."""

import random
from collections.abc import Callable, Sequence

import numpy as np
from pycocotools import mask as rle

from .coco_masks import box_of
from .findings import Place

SEEN = 2000  # objects whose box is compared with what it is to hold
MARGIN = 2  # pixels by which tools differ: a width w or w - 1, the edges or the centers of pixels

_CORNERS = "x0, y0, x1, y1 (they reach out of their images)"
_FRACTIONS = "fractions of the image"


def check_boxes(places: Sequence[Place]) -> None:
    """Refuse boxes that are, for most objects, not x, y, width and height in pixels; single ones outside."""
    small = [place for place in places if max(place.object["bbox"]) <= 1]
    out = [place for place in places if _reaches_out(place)]
    far = [place for place in out if _reaches_out(place, 1.1)]
    could_be_corners = all(w > x and h > y for x, y, w, h in (place.object["bbox"] for place in places))
    few, most = len(places) / (10 if could_be_corners else 2), len(places) / 2
    for found, limit, guess in ((out, most, _CORNERS), (far, few, _CORNERS), (small, most, _FRACTIONS)):
        if len(found) > limit:
            kind, remedy = f"Boxes look like {guess}, {len(found)} of {len(places)}", "COCO has x, y, width"
            found[0].refuse(kind, f"{remedy} and height in pixels: convert them.", found[0].object["bbox"])
            return
    for place in places:
        if _is_outside(place) and not place.object["iscrowd"]:
            remedy = "Correct them, or remove the objects."
            place.refuse("Boxes outside their images", remedy, place.object["bbox"])


def check_agreement(places: Sequence[Place]) -> None:
    """Refuse boxes that are, for most objects, not where the mask or the keypoints are."""
    seen = random.Random(0).sample(places, min(SEEN, len(places)))
    with_mask = [place for place in seen if "segmentation" in place.object and not place.object["iscrowd"]]
    with_keypoints = [
        place for place in seen if place.object.get("num_keypoints") and place.object.get("keypoints")
    ]
    _refuse_most(with_mask, _is_off_mask, "mask")
    _refuse_most(with_keypoints, _is_off_keypoints, "keypoints")


def _refuse_most(places: Sequence[Place], is_off: Callable[[Place], bool], what: str) -> None:
    off = [place for place in places if is_off(place)]
    if len(off) > max(2, len(places) / 2):
        kind = f"Boxes and {what} of an object are in different places, {len(off)} of {len(places)} compared"
        remedy = "All are in pixels, x before y, a box as x, y, width and height: convert them. "
        remedy += "Or remove " + ("bbox, for boxes around the masks." if what == "mask" else "keypoints.")
        off[0].refuse(kind, remedy, off[0].object["bbox"])


def _is_off_mask(place: Place) -> bool:
    """Whether the box overlaps little with that of the mask, or less than if it were x0, y0, x1, y1."""
    x, y, width, height = place.object["bbox"]
    ways = [[x, y, width, height], [x, y, max(0, width - x), max(0, height - y)]]
    widen = np.array([-MARGIN, -MARGIN, 2 * MARGIN, 2 * MARGIN])
    box, corners = rle.iou(ways + widen, np.array([box_of(place.object["segmentation"])]) + widen, [0])[:, 0]
    return bool(box < 0.5 or (box < 0.9 and corners > box))


def _is_off_keypoints(place: Place) -> bool:
    """Whether few labelled keypoints are in the box, or far more if x and y were swapped or it had its middle
    at x, y. A face's box, of a body's keypoints, has some.
    """
    box = left, top, width, height = place.object["bbox"]
    points = np.reshape(place.object["keypoints"], (-1, 3))
    x, y = points[points[:, 2] > 0, :2].T
    inside = _inside(x, y, left, top, box)
    other = max(_inside(y, x, left, top, box), _inside(x, y, left - width / 2, top - height / 2, box))
    return bool(inside < 0.1 or (inside < 0.5 and other > 0.8))


def _inside(x: np.ndarray, y: np.ndarray, left: float, top: float, box: Sequence[float]) -> float:
    """The share of points in a box of the size of `box` at another place, within a pixel."""
    _, _, width, height = box
    return np.mean((x >= left - 1) & (x <= left + width + 1) & (y >= top - 1) & (y <= top + height + 1))


def _reaches_out(place: Place, times: float = 1) -> bool:
    (x, y, width, height), image = place.object["bbox"], place.image
    return x + width > times * image["width"] + 1 or y + height > times * image["height"] + 1


def _is_outside(place: Place) -> bool:
    (x, y, width, height), image = place.object["bbox"], place.image
    return x + width < 0 or y + height < 0 or x > image["width"] or y > image["height"]
