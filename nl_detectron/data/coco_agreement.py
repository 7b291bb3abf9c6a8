"""Whether boxes of a COCO file are in their images, and where masks and keypoints are: most are, or none."""

from collections.abc import Callable, Sequence

import numpy as np
from pycocotools import mask as rle

from .coco_masks import box_of
from .findings import Place

SEEN = 2000  # objects, evenly spread, whose box is compared with what it is to hold

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
        if _is_outside(place):
            remedy = "Correct them, or remove the objects."
            place.refuse("Boxes outside their images", remedy, place.object["bbox"])


def check_agreement(places: Sequence[Place]) -> None:
    """Refuse boxes that are, for most objects, not where the mask or the keypoints are."""
    seen = places[:: len(places) // SEEN + 1]
    with_mask = [place for place in seen if "segmentation" in place.object and not place.object["iscrowd"]]
    with_keypoints = [place for place in seen if any((place.object.get("keypoints") or ())[2::3])]
    _refuse_most(with_mask, _is_off_mask, "mask")
    _refuse_most(with_keypoints, _is_off_keypoints, "keypoints")


def _refuse_most(places: Sequence[Place], is_off: Callable[[Place], bool], what: str) -> None:
    off = [place for place in places if is_off(place)]
    if len(off) > len(places) / 2:
        kind = f"Boxes and {what} of an object are in different places, {len(off)} of {len(places)} compared"
        remedy = "All are in pixels, x before y, a box as x, y, width and height: convert them."
        if what == "mask":
            remedy += " Or remove bbox, for boxes around the masks."
        off[0].refuse(kind, remedy, off[0].object["bbox"])


def _is_off_mask(place: Place) -> bool:
    """Whether the box overlaps little with that of the mask, or less than if it were x0, y0, x1, y1."""
    x, y, width, height = place.object["bbox"]
    boxes = np.array([[x, y, width, height], [x, y, max(0, width - x), max(0, height - y)]], float)
    box, corners = rle.iou(boxes, np.array([box_of(place.object["segmentation"])]), [0])[:, 0]
    return bool(box < 0.5 or corners > box)


def _is_off_keypoints(place: Place) -> bool:
    """Whether less than half of the keypoints, but for unlabelled ones, is inside the box."""
    left, top, width, height = place.object["bbox"]
    points = np.reshape(place.object["keypoints"], (-1, 3))
    x, y = points[points[:, 2] != 0, :2].T
    return bool(np.mean((x >= left) & (x <= left + width) & (y >= top) & (y <= top + height)) < 0.5)


def _reaches_out(place: Place, times: float = 1) -> bool:
    (x, y, width, height), image = place.object["bbox"], place.image
    return x + width > times * image["width"] + 1 or y + height > times * image["height"] + 1


def _is_outside(place: Place) -> bool:
    (x, y, width, height), image = place.object["bbox"], place.image
    return x + width <= 0 or y + height <= 0 or x >= image["width"] or y >= image["height"]
