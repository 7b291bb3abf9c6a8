"""The door for files in COCO's format: each is read once, and mended or refused before it is used.

What departs from the format is mended where there is one right value. The rest is refused, with all faults.
Behind the door, Detectron2's loader and COCO's evaluation read one clean file: this one, or a mended copy.
"""

import codecs
import gc
import hashlib
import json
import os
import reprlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import orjson
from iopath.common.file_io import get_cache_dir

from nl_detectron.errors import UserError

from .coco_images import clean_images
from .coco_objects import clean_objects
from .findings import Entry, Findings
from .keypoints import keypoint_metadata

_ORIGIN = ("id", "license", "coco_url", "flickr_url", "date_captured")  # of an image


class CocoFile(NamedTuple):
    """A clean COCO file."""

    content: dict[str, list[Entry]]  # categories in the order of their ids
    keypoints: dict[str, object]  # Detectron2's metadata of them; empty without
    findings: Findings  # what was mended


def clean_coco_file(json_file: str, image_dir: str, may_miss: int = 0) -> CocoFile:
    """Read and clean a COCO file.

    Args:
        may_miss: how many images may have no file, and how many one that cannot be read or has another size.

    Raises:
        UserError: naming all that has no one right value, by kinds, with examples.
    """
    if not Path(image_dir).is_dir():
        raise UserError(f"IMAGE_DIR {image_dir!r} is not a folder.")
    gc.disable()  # it would look through millions of objects again and again, none of which is garbage
    try:
        return _clean(_read(json_file), json_file, image_dir, may_miss)
    finally:
        gc.enable()


def _clean(content: dict[str, list[Entry]], json_file: str, image_dir: str, may_miss: int) -> CocoFile:
    find = Findings()
    with open(json_file, "rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            find.mend("a byte-order mark, which pycocotools does not read: removed")
    images, categories = content["images"], content["categories"]
    for key, name in (("images", "file_name"), ("categories", "name")):
        for entry in content[key]:
            if isinstance(entry, dict) and type(entry.get(name)) in (int, float):
                entry[name] = str(entry[name])
                find.mend(f"{name} of {key} that is a number: now text")
            if not isinstance(entry, dict) or not entry.get(name) or not isinstance(entry[name], str):
                find.refuse(f"Entries of {key} without a {name}", "Add it.", reprlib.repr(entry))
    find.check(json_file)
    named = {"image_id": _clean_ids(images, "images", find)}
    named["category_id"] = _clean_ids(categories, "categories", find)
    find.check(json_file)
    if "annotations" in content and not content["annotations"]:
        del content["annotations"]
        find.mend("annotations is empty: now none, so that predictions are written without AP")
    clean_images(images, image_dir, may_miss, find)
    _join_images(images, named["image_id"], find)
    objects = content.get("annotations", [])
    keypoints = keypoint_metadata(categories, objects, find)
    clean_objects(objects, named, len(keypoints.get("keypoint_names", ())), find)
    _clean_categories(content, find)
    find.check(json_file)
    return CocoFile(content, keypoints, find)


def _read(json_file: str) -> dict[str, list[Entry]]:
    data = Path(json_file).read_bytes()
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError:  # for NaN and a byte-order mark too
        try:
            content = json.loads(data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            remedy = " Save it as UTF-8, not compressed." if isinstance(error, UnicodeError) else ""
            raise UserError(f"{json_file} is not a JSON file: {error}.{remedy}") from None
    for key in ("images", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not entries:
            raise UserError(f"{json_file} has no list of {key}, which COCO's format has.")
    if not isinstance(content.get("annotations") or [], list):
        raise UserError(f"{json_file} has annotations that are not a list.")
    return content


def _clean_ids(entries: list[Entry], key: str, find: Findings) -> dict[object, Entry]:
    """The entries by the ids by which objects may name them. Afterwards, ids are unique and of one type."""
    named: dict[object, Entry] = {}
    for entry in entries:
        id_ = entry.get("id")
        if type(id_) is float and id_.is_integer():
            entry["id"] = id_ = int(id_)
            find.mend(f"ids of {key} written as 1.0: now 1")
        if type(id_) not in (int, str):
            what = f"{key.capitalize()} without an id that is a number or text"
            find.refuse(what, "Add it.", reprlib.repr(entry))
        elif str(id_) not in named:
            named[id_] = named[str(id_)] = entry
        elif named[str(id_)] != entry:
            find.refuse(f"Ids that several {key} have", "Make them unique, in the annotations too.", id_)
    if len(unique := {id(entry): entry for entry in named.values()}) < len(entries):
        entries[:] = unique.values()
        find.mend(f"{key} that are in the file twice: now once")
    texts = [entry for entry in entries if isinstance(entry.get("id"), str)]
    are_decimal = bool(texts) and all(str(entry["id"]).isdecimal() for entry in entries)
    if are_decimal and len({int(entry["id"]) for entry in entries}) == len(entries):  # not "1" and "01"
        for entry in texts:
            entry["id"] = int(entry["id"])
            named[entry["id"]] = entry
            find.mend(f"ids of {key} written as text: now numbers")
    elif texts and (are_decimal or key == "categories" or len(texts) < len(entries)):
        for number, entry in enumerate(entries, start=1):
            entry["id"] = number
            find.mend(f"ids of {key} that are no numbers: now numbered in the file's order")
    return named


def _join_images(images: list[Entry], named: dict[object, Entry], find: Findings) -> None:
    """One image for each file: the ids of equal entries name the first. Others may be frames of a file."""
    first: dict[str, Entry] = {}
    for image in images:
        one = first.setdefault(image["file_name"], image)
        if one is not image and one | dict.fromkeys(_ORIGIN) != image | dict.fromkeys(_ORIGIN):
            find.refuse("Files that different images name", "Make them one image.", image["file_name"])
    if len(first) < len(images):
        named |= {id_: first[image["file_name"]] for id_, image in named.items()}
        images[:] = first.values()
        find.mend("images of one file: now one, with the objects of all")


def _clean_categories(content: Mapping[str, list[Entry]], find: Findings) -> None:
    """Sorted, with unique names, without Roboflow's root: a category above all others that no object has."""
    categories = content["categories"]
    ids = (each.get("category_id") for each in content.get("annotations", ()) if isinstance(each, dict))
    used = {id_ for id_ in ids if isinstance(id_, (int, str))}
    for root in [each for each in categories if each["id"] not in used and _is_above(each)]:
        others = [each for each in categories if each is not root]
        if others and all(each.get("supercategory") == root["name"] for each in others):
            categories.remove(root)
            find.mend("a root category, which no object has: removed")
    categories.sort(key=lambda category: category["id"])
    for name, count in Counter(category["name"] for category in categories).items():
        if count > 1:
            find.refuse("Names that several categories have", "Rename them, or make them one.", name)


def _is_above(category: Entry) -> bool:
    """Whether it has no supercategory, which is "none" to Roboflow."""
    return str(category.get("supercategory") or "none").lower() == "none"


def write_clean(file: CocoFile, source: str) -> str:
    """The path of the clean file: `source`, or a copy in Detectron2's cache if something was mended."""
    if not file.findings.mended:
        return source
    text = json.dumps(file.content)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    copy = Path(get_cache_dir(), "nl_detectron", f"{Path(source).stem}_{digest}.json")
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        own = copy.with_suffix(f".{os.getpid()}")  # several processes write the same
        own.write_text(text, encoding="utf-8")
        own.replace(copy)
    return str(copy)
