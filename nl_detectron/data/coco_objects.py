"""The objects of a COCO file, mended in place or refused: references, flags, masks, keypoints, boxes, areas.

A million objects pass in seconds: what is right takes the first test of each function only.
"""

import json
import re
import reprlib
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from .coco_agreement import check_agreement, check_boxes
from .coco_masks import are_numbers, are_polygons, area_of, as_polygons, box_of, count_pixels, is_point
from .findings import Entry, Findings, Place

Named = Mapping[object, Entry]  # images or categories, whose ids are clean, by the ids that the file has

_FLAGS = dict.fromkeys(("0", "0.0", "false", "no", "none", ""), 0)  # by str(value).lower()
_FLAGS |= dict.fromkeys(("1", "1.0", "true", "yes"), 1)
_NUMBER = re.compile(r"(?<![\d.])-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\d.])")
_EMPTY = "masks without a pixel (RLE), or of one point: now none"
_FAR = 10  # times the larger side of the image: its masks would take gigabytes


def clean_objects(objects: list[Entry], named: Mapping[str, Named], keypoints: int, find: Findings) -> None:
    """Clean objects, whose "image_id" and "category_id" are `named`, and which have so many keypoints."""
    _drop_repeated(objects, named["image_id"], find)
    boxed: list[Place] = []  # objects with a right box
    for object_ in objects:
        if not isinstance(object_, dict):
            find.refuse("Objects that are not JSON objects", "Remove them.", reprlib.repr(object_))
            continue
        image, category = (_refer(object_, key, named[key], find) for key in ("image_id", "category_id"))
        if image is None or category is None or not image["height"]:  # refused already
            continue
        place = Place(object_, image, find)
        _clean_flags(place)
        _clean_mask(place)
        if keypoints:
            _clean_keypoints(place, keypoints)
        elif points := object_.get("keypoints"):
            place.refuse("keypoints that are not numbers", "Write x, y and 0, 1 or 2 for each.", points)
        if _clean_box(place):
            _clean_area(place)
            boxed.append(place)
    _clean_ids(objects, find)
    _clean_crowds(boxed, find)
    check_boxes(boxed)
    if not find.is_refused:
        check_agreement(boxed)


def _drop_repeated(objects: list[Entry], images: Named, find: Findings) -> None:
    """The same object again, as when an export is merged with itself: two boxes to be found."""
    alike: dict[str, list[Entry]] = defaultdict(list)  # by what is fast to compare
    for each in objects:
        if isinstance(each, dict) and (image := _named(images, each.get("image_id"))):
            alike[f"{image['id']} {each.get('category_id')} {each.get('bbox')}"].append(each)
    again = {id(each) for group in alike.values() if len(group) > 1 for each in _repeats(group)}
    if again:
        objects[:] = [each for each in objects if id(each) not in again]
        find.mend("annotations that are in the file twice: now once")


def _repeats(objects: Sequence[Entry]) -> Iterator[Entry]:
    """Those of an image that equal one before them, but for their ids."""
    seen: set[str] = set()
    for each in objects:
        text = json.dumps(each | {"id": 0, "image_id": 0}, sort_keys=True)
        if text in seen:
            yield each
        seen.add(text)


def _refer(object_: Entry, key: str, entries: Named, find: Findings) -> Entry | None:
    """The image or category that an object names, if need be as text for a number, or the reverse."""
    value = object_.get(key)
    entry = _named(entries, value)
    if entry is None:
        remedy = f"Add the {key.removesuffix('_id')}, or remove them."
        example = f"annotation {object_.get('id')} has {key} {reprlib.repr(value)}"
        find.refuse(f"Objects whose {key} is not in the file", remedy, example)
    elif type(value) is not type(entry["id"]) or value != entry["id"]:
        object_[key] = entry["id"]
        find.mend(f"{key} written in another way than the id that it names: now as the id")
    return entry


def _named(entries: Named, id_: object) -> Entry | None:
    return entries.get(id_ if isinstance(id_, (int, float, str)) else None) or entries.get(str(id_))


def _clean_flags(place: Place) -> None:
    """`iscrowd` is 0 or 1; what is to be ignored is a crowd, the one kind that COCO's evaluation ignores."""
    object_ = place.object
    crowd = object_.get("iscrowd")
    if type(crowd) is not int or crowd not in (0, 1):
        object_["iscrowd"] = _FLAGS.get(str(crowd).lower(), 0)
        if str(crowd).lower() in _FLAGS:
            place.find.mend("iscrowd missing, or not written as 0 or 1: 0 if missing")
        else:
            place.refuse("iscrowd that is not 0 or 1", "Correct it.", crowd)
    if (ignore := object_.get("ignore", 0)) != 0:
        if str(ignore).lower() not in _FLAGS:
            place.refuse("ignore that is not 0 or 1", "Correct it.", ignore)
        object_["iscrowd"] |= _FLAGS.get(str(object_.pop("ignore")).lower(), 0)
        place.find.mend("ignore: now iscrowd 1 where it is set, which is neither learned from nor counted")


def _clean_mask(place: Place) -> None:
    """`segmentation` is a list of polygons or an RLE, or is not there."""
    mask = place.object.get("segmentation")
    if "segmentation" not in place.object:
        return
    if are_polygons(mask) and not is_point(mask):
        _refuse_far(place, mask)
        return
    polygons = as_polygons(mask)
    if isinstance(mask, dict) and mask.get("size") == [place.image["height"], place.image["width"]]:
        if pixels := count_pixels(mask):
            return
        if pixels is None:
            remedy = "Write the masks anew, with pycocotools or as polygons."
            place.refuse("Masks (RLE) whose counts do not fill their size", remedy)
        else:
            place.find.mend(_EMPTY)
    elif isinstance(mask, dict) and mask:
        kind, remedy = "Masks (RLE) of another size than their image", "RLE has the image's [height, width]."
        place.refuse(kind, remedy, mask.get("size"))
    elif are_polygons(mask):
        place.find.mend(_EMPTY)
    elif are_polygons(polygons):
        place.object["segmentation"] = polygons
        _refuse_far(place, polygons)
        place.find.mend("polygons not nested, or with parts of fewer than 3 points: nested, without these")
        return
    elif not mask or polygons == []:
        place.find.mend("segmentation empty, or only of parts of fewer than 3 points: now none")
    else:
        remedy = "A polygon is x, y, x, y, ...: finite numbers, an even count."
        place.refuse("segmentation that is neither polygons nor RLE", remedy, mask)
    del place.object["segmentation"]


def _refuse_far(place: Place, polygons: list[list[float]]) -> None:
    far = _FAR * max(place.image["height"], place.image["width"])
    if max(map(max, polygons)) > far or min(map(min, polygons)) < -far:
        remedy = "Is a decimal point lost? Correct them, or remove the objects."
        place.refuse(f"Polygons beyond {_FAR} times the size of their images", remedy, polygons)


def _clean_keypoints(place: Place, count: int) -> None:
    """`keypoints` are 3 numbers each, for all objects, because Detectron2 takes those of all or of none."""
    points = place.object.get("keypoints")
    if not points:
        place.object |= {"keypoints": [0] * (3 * count), "num_keypoints": 0}
        place.find.mend("objects without keypoints, in a data set with: now with unlabelled ones")
    elif not are_numbers(points, 3 * count):
        kind = f"keypoints that are not 3 finite numbers each for the {count} names"
        place.refuse(kind, "Write x, y and 0, 1 or 2 for each.", points)
    elif max(points[2::3]) > 2:
        place.refuse("keypoints whose third number is above 2", "Write x, y and 0, 1 or 2 for each.", points)
    elif place.object.get("num_keypoints") != (labelled := sum(v > 0 for v in points[2::3])):
        place.object["num_keypoints"] = labelled
        place.find.mend("num_keypoints missing or wrong: now the number of labelled keypoints")


def _clean_box(place: Place) -> bool:
    """`bbox` is x, y, width and height; else it comes from its text, the mask or the keypoints."""
    box = place.object.get("bbox")
    if _is_box(box):
        return True
    for new in (_box_in_text(box), _extent(place)):
        if _is_box(new):
            place.object["bbox"] = new
            place.find.mend("bbox missing, without a size or not 4 numbers: of its text, mask or keypoints")
            return True
    remedy = "COCO has x, y, width and height, the last two above 0. Correct it, or remove the objects."
    place.refuse("bbox that is no box, where no mask or keypoints give one", remedy, box)
    return False


def _is_box(box: object) -> bool:
    return are_numbers(box, 4) and box[2] > 0 and box[3] > 0


def _box_in_text(box: object) -> list[float]:
    is_text = isinstance(box, str) or (isinstance(box, list) and any(isinstance(side, str) for side in box))
    return [float(number) for number in _NUMBER.findall(str(box))] if is_text else []


def _extent(place: Place) -> list[float]:
    """The box around the mask, or else around the labelled keypoints; [] without."""
    mask, points = place.object.get("segmentation"), place.object.get("keypoints")
    if are_polygons(mask) or isinstance(mask, dict):
        return box_of(mask)
    if not isinstance(points, list) or not are_numbers(points, len(points)) or len(points) % 3:
        return []
    labelled = [points[k : k + 2] for k in range(0, len(points), 3) if points[k + 2] > 0]
    return box_of([[*chain(*labelled)]]) if labelled else []


def _clean_area(place: Place) -> None:
    """`area` is that of the mask; of the box where there is no mask.

    By it, OKS judges keypoints: where they are labelled and there is no mask, it may be a person's beside a
    face's box, up to less than the whole image.
    """
    area, (_, _, width, height) = place.object.get("area"), place.object["bbox"]
    of_box, mask = float(width) * float(height), place.object.get("segmentation")
    is_number = isinstance(area, (int, float)) and 0 < area < sys.float_info.max
    is_of_box = is_number and abs(area - of_box) <= 1e-3 * area + 1
    if is_number and 0.1 * of_box < area < 1.1 * of_box and not is_of_box:
        return
    true = (area_of(mask) if mask else 0) or of_box
    least, most = (0.25 * true, 4 * true) if mask else (0.01 * true, 4 * true)
    if not mask and place.object.get("num_keypoints"):
        most = max(most, 0.99 * place.image["height"] * place.image["width"])
    if not is_number or not least <= area <= most or (is_of_box and true < 0.99 * area):
        place.object["area"] = true
        kind = "area missing, 0, far from the true one, or of the box where there is a mask"
        place.find.mend(f"{kind}: now of the mask or the box")


def _clean_ids(objects: list[Entry], find: Findings) -> None:
    """pycocotools takes a match with the id 0 for none."""
    objects = [each for each in objects if isinstance(each, dict)]
    ids = [each.get("id") for each in objects]
    if not all(type(id_) is int and 0 < id_ < 2**53 for id_ in ids) or len(set(ids)) < len(ids):
        for number, each in enumerate(objects, start=1):
            each["id"] = number
            find.mend("ids of annotations missing, from 0, as text or not unique: all numbered from 1")


def _clean_crowds(places: Sequence[Place], find: Findings) -> None:
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
