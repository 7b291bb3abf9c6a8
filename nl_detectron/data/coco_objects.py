"""The objects of a COCO file, mended in place or refused: references, flags, masks, keypoints, boxes, areas.

A million objects pass in seconds: what is right takes the first test of each function only.
"""

import re
import reprlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from .coco_masks import are_numbers, are_polygons, area_of, as_polygons, box_of, fills_its_size
from .findings import Entry, Findings

Named = Mapping[object, Entry]  # images or categories, whose ids are clean, by the ids that the file has

_CORNERS = "x0, y0, x1, y1 (they reach out of their images)"
_FRACTIONS = "fractions of the image"
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1, "none": 0, "0.0": 0, "1.0": 1}  # by str(value).lower()


@dataclass(slots=True)
class _Place:
    """An object with its image, and how a message names it."""

    object: Entry
    image: Entry
    find: Findings

    def refuse(self, kind: str, remedy: str, value: object = "") -> None:
        where = f"annotation {self.object.get('id')} of {self.image['file_name']}"
        self.find.refuse(kind, remedy, f"{where}: {reprlib.repr(value)}" if value != "" else where)


def clean_objects(objects: list[Entry], named: Mapping[str, Named], keypoints: int, find: Findings) -> None:
    """Clean objects, whose "image_id" and "category_id" are `named`, and which have so many keypoints."""
    _drop_repeated(objects, find)
    boxed: list[_Place] = []  # objects with a right box
    for object_ in objects:
        if not isinstance(object_, dict):
            find.refuse("Objects that are not JSON objects", "Remove them.", reprlib.repr(object_))
            continue
        image, category = (_refer(object_, key, named[key], find) for key in ("image_id", "category_id"))
        if image is None or category is None:
            continue
        place = _Place(object_, image, find)
        _clean_flags(place)
        _clean_mask(place)
        if keypoints:
            _clean_keypoints(place, keypoints)
        elif (points := object_.get("keypoints")) and not isinstance(points, list):
            place.refuse("keypoints that are not a list", "Write x, y and 0, 1 or 2 for each.", points)
        if _clean_box(place):
            _clean_area(place)
            boxed.append(place)
    _clean_ids(objects, find)
    _clean_crowds(boxed, find)
    _check_boxes(boxed, find)


def _drop_repeated(objects: list[Entry], find: Findings) -> None:
    """Two of the same object, with one id, as when an export is merged with itself: two boxes to be found."""
    first: dict[str, Entry] = {}  # by id
    kept = [each for each in objects if not isinstance(each, dict) or _is_new(each, first)]
    if len(kept) < len(objects):
        objects[:] = kept
        find.mend("annotations that are in the file twice: now once")


def _is_new(object_: Entry, first: dict[str, Entry]) -> bool:
    id_ = object_.get("id")
    if not isinstance(id_, (int, str)):
        return True
    one = first.setdefault(id_, object_)
    return one is object_ or one != object_


def _refer(object_: Entry, key: str, entries: Named, find: Findings) -> Entry | None:
    """The image or category that an object names, if need be as text for a number, or the reverse."""
    value = object_.get(key)
    entry = entries.get(value if isinstance(value, (int, float, str)) else None) or entries.get(str(value))
    if entry is None:
        remedy = f"Add the {key.removesuffix('_id')}, or remove them."
        example = f"annotation {object_.get('id')} has {key} {reprlib.repr(value)}"
        find.refuse(f"Objects whose {key} is not in the file", remedy, example)
    elif type(value) is not type(entry["id"]) or value != entry["id"]:
        object_[key] = entry["id"]
        find.mend(f"{key} written in another way than the id that it names: now as the id")
    return entry


def _clean_flags(place: _Place) -> None:
    """`iscrowd` is 0 or 1; what is to be ignored is a crowd, the one kind that COCO's evaluation ignores."""
    object_ = place.object
    crowd = object_.get("iscrowd")
    if type(crowd) is not int or crowd not in (0, 1):
        object_["iscrowd"] = _FLAGS.get(str(crowd).lower(), 0)
        if str(crowd).lower() in _FLAGS:
            place.find.mend("iscrowd missing, or not written as 0 or 1: 0 if missing")
        else:
            place.refuse("iscrowd that is not 0 or 1", "Correct it.", crowd)
    if object_.get("ignore", 0) != 0:
        object_["iscrowd"] |= _FLAGS.get(str(object_.pop("ignore")).lower(), 1)
        place.find.mend("ignore: now iscrowd 1 where it is set, which is neither learned from nor counted")


def _clean_mask(place: _Place) -> None:
    """`segmentation` is a list of polygons or an RLE, or is not there."""
    mask = place.object.get("segmentation")
    if are_polygons(mask) or "segmentation" not in place.object:
        return
    polygons = as_polygons(mask)
    if isinstance(mask, dict) and mask.get("size") == [place.image["height"], place.image["width"]]:
        if fills_its_size(mask):
            return
        remedy = "Write the masks anew, with pycocotools or as polygons."
        place.refuse("Masks (RLE) whose counts do not fill their size", remedy)
    elif isinstance(mask, dict) and mask:
        kind, remedy = "Masks (RLE) of another size than their image", "RLE has the image's [height, width]."
        place.refuse(kind, remedy, mask.get("size"))
    elif are_polygons(polygons):
        place.object["segmentation"] = polygons
        place.find.mend("polygons not nested, or with parts of fewer than 3 points: nested, without these")
        return
    elif not mask or polygons == []:
        place.find.mend("segmentation empty, or only of parts of fewer than 3 points: now none")
    else:
        remedy = "A polygon is x, y, x, y, ...: finite numbers, an even count."
        place.refuse("segmentation that is neither polygons nor RLE", remedy, mask)
    del place.object["segmentation"]


def _clean_keypoints(place: _Place, count: int) -> None:
    """`keypoints` are 3 numbers each, for all objects, because Detectron2 takes those of all or of none."""
    points = place.object.get("keypoints")
    if not points:
        place.object |= {"keypoints": [0] * (3 * count), "num_keypoints": 0}
        place.find.mend("objects without keypoints, in a data set with: now with unlabelled ones")
    elif not are_numbers(points, 3 * count):
        kind = f"keypoints that are not 3 finite numbers each for the {count} names"
        place.refuse(kind, "Write x, y and 0, 1 or 2 for each.", points)
    elif place.object.get("num_keypoints") != (labelled := sum(v > 0 for v in points[2::3])):
        place.object["num_keypoints"] = labelled
        place.find.mend("num_keypoints missing or wrong: now the number of labelled keypoints")


def _clean_box(place: _Place) -> bool:
    """`bbox` is x, y, width and height; else it comes from its text, the mask or the keypoints."""
    box = place.object.get("bbox")
    if _is_box(box):
        return True
    for new in (_box_in_text(box), _extent(place)):
        if _is_box(new):
            place.object["bbox"] = new
            place.find.mend("bbox missing, without a size or as text: now of its text, mask or keypoints")
            return True
    remedy = "COCO has x, y, width and height, the last two above 0. Correct it, or remove the objects."
    place.refuse("bbox that is no box, where no mask or keypoints give one", remedy, box)
    return False


def _is_box(box: object) -> bool:
    return are_numbers(box, 4) and box[2] > 0 and box[3] > 0


def _box_in_text(box: object) -> list[float]:
    is_text = isinstance(box, str) or (isinstance(box, list) and any(isinstance(side, str) for side in box))
    return [float(each) for each in re.findall(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?", str(box))] if is_text else []


def _extent(place: _Place) -> list[float]:
    """The box around the mask, or else around the labelled keypoints; [] without."""
    mask, points = place.object.get("segmentation"), place.object.get("keypoints")
    if are_polygons(mask) or isinstance(mask, dict):
        return box_of(mask)
    if not isinstance(points, list) or not are_numbers(points, len(points)) or not any(points[2::3]):
        return []
    return box_of([[*chain(*(points[k : k + 2] for k in range(0, len(points), 3) if points[k + 2] > 0))]])


def _clean_area(place: _Place) -> None:
    """`area` is that of the mask; of the box where there is no mask."""
    area, (_, _, width, height) = place.object.get("area"), place.object["bbox"]
    is_number = isinstance(area, (int, float)) and 0 < area < sys.float_info.max
    if is_number and abs(area - width * height) > 1e-3 * area + 1:
        return
    true = area_of(place.object["segmentation"]) if "segmentation" in place.object else width * height
    if not is_number or 0 < true < 0.99 * area:
        place.object["area"] = true or width * height
        place.find.mend("area missing, 0, or of the box where there is a mask: now of the mask or the box")


def _clean_ids(objects: list[Entry], find: Findings) -> None:
    """pycocotools takes a match with the id 0 for none."""
    objects = [each for each in objects if isinstance(each, dict)]
    ids = [each.get("id") for each in objects]
    if not all(type(id_) is int and 0 < id_ < 2**53 for id_ in ids) or len(set(ids)) < len(ids):
        for number, each in enumerate(objects, start=1):
            each["id"] = number
            find.mend("ids of annotations missing, from 0, as text or not unique: all numbered from 1")


def _clean_crowds(places: Sequence[_Place], find: Findings) -> None:
    """Where others have masks, the box of a crowd is the region that is ignored."""
    if places and all(place.object["iscrowd"] for place in places):
        rule = "A crowd (iscrowd 1) is neither learned from nor counted"
        find.refuse("Every object is a crowd", f"{rule}: set iscrowd to 0 for single objects.", len(places))
    if any("segmentation" in place.object for place in places):
        for each in (place.object for place in places):
            if each["iscrowd"] and "segmentation" not in each:
                x, y, width, height = each["bbox"]
                each["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
                find.mend("crowds without a mask: now of the box")


def _check_boxes(places: Sequence[_Place], find: Findings) -> None:
    """Refuse boxes that are, for most objects, not x, y, width and height in pixels."""
    small = [place for place in places if max(place.object["bbox"]) <= 1]
    out = [place for place in places if _reaches_out(*place.object["bbox"], place.image)]
    far = [place for place in out if _reaches_out(*place.object["bbox"], place.image, 1.1)]
    could_be_corners = all(w > x and h > y for x, y, w, h in (place.object["bbox"] for place in places))
    few, most = len(places) / (10 if could_be_corners else 2), len(places) / 2
    for found, limit, guess in ((out, most, _CORNERS), (far, few, _CORNERS), (small, most, _FRACTIONS)):
        if len(found) > limit:
            kind, remedy = f"Boxes look like {guess}, {len(found)} of {len(places)}", "COCO has x, y, width"
            found[0].refuse(kind, f"{remedy} and height in pixels: convert them.", found[0].object["bbox"])
            return


def _reaches_out(x: float, y: float, width: float, height: float, image: Entry, times: float = 1) -> bool:
    return x + width > times * image["width"] + 1 or y + height > times * image["height"] + 1
