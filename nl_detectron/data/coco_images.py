"""The images of a COCO file: their files, found in the folder, and their sizes."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize
from urllib.parse import unquote

from PIL import ExifTags, Image

from .findings import Entry, Findings

HEADERS = 2000  # files, evenly spread, that are opened, without decoding, for their sizes and bits


def clean_images(images: list[Entry], folder: str, may_miss: int, find: Findings) -> None:
    """Clean the images of a file. Up to `may_miss` may have no file, and as many one that does not fit."""
    _find_files(images, folder, may_miss, find)
    for image in images:
        for key in ("height", "width"):
            if isinstance(image.get(key), float) and image[key].is_integer():
                image[key] = int(image[key])
                find.mend("height or width written as 640.0: now 640")
        size = image.get("height"), image.get("width")
        if all(type(side) is int and 0 < side < 2**31 for side in size):
            continue
        _, image["width"], image["height"], _ = read_header(os.path.join(folder, image["file_name"]))
        if image["width"]:
            find.mend("images whose height or width is missing or no number: now of the file")
        else:
            remedy = "Give height and width, or correct the file."
            find.refuse("Images without a size whose file cannot be read", remedy, image["file_name"])
    spread = images[:: -(-len(images) // HEADERS)]
    faults = [fault for image in spread if (fault := _fault(image, folder, find))]
    for kind, remedy, example in faults if len(faults) > may_miss else ():
        find.refuse(kind, remedy.format(len(faults)), example)


def _find_files(images: Sequence[Entry], folder: str, may_miss: int, find: Findings) -> None:
    """Make `file_name` lead to a file, by listing folders: a call for each file is slow over a network."""
    listed: dict[str, frozenset[str]] = {}
    lost: list[Entry] = []
    for image in images:
        parent, base = os.path.split(os.path.join(folder, image["file_name"]))
        if parent not in listed:
            listed[parent] = frozenset(os.listdir(parent) if os.path.isdir(parent) else ())
        if base not in listed[parent]:
            lost.append(image)
    if not lost:
        return
    places = _places_below(folder)
    known = Counter(image["file_name"] for image in images)
    missing, found = [], {}
    for image in lost:
        name = image["file_name"]
        place = None if name in found else _look_up(name, places)
        if place and place not in known:  # not that of another image
            found[name] = place
            known[place] += 1
        if name in found:
            image["file_name"] = found[name]
            find.mend("file names of another machine (path, backslashes, case): now as in the folder")
        else:
            missing.append(name)
    if len(missing) > may_miss:
        for name in missing:
            remedy = f"Correct file_name, or the folder {folder}; or give --skip-broken {len(missing)}."
            find.refuse("Images whose file is not there", remedy, name)


def _places_below(folder: str) -> dict[str, list[str]]:
    """Files below a folder, by the ends of their paths in small letters: c.jpg, b/c.jpg and a/b/c.jpg."""
    places: dict[str, list[str]] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            place = Path(parent, name).relative_to(folder)
            for start in range(len(place.parts)):
                places.setdefault(_key("/".join(place.parts[start:])), []).append(str(place))
    return places


def _key(path: str) -> str:
    """One for the ways in which systems write a name: capitals, and é as one character or two (macOS)."""
    return normalize("NFC", path).replace("\\", "/").lower()


def _look_up(name: str, places: dict[str, list[str]]) -> str | None:
    """The one file that shares the longest end with a name; None if there is none, or several."""
    ways = [_key(way).split("/") for way in (name, unquote(name))]
    ends = ("/".join(parts[start:]) for parts in ways for start in range(len(parts)))
    found = next((places[end] for end in ends if end in places), [])
    exact = [place for place in found if name.endswith(os.path.basename(place))]  # in capitals too
    return next((alike[0] for alike in (found, exact) if len(alike) == 1), None)


def read_header(file: str) -> tuple[bool, int, int, bool]:
    """Whether it has 16 or 32 bits a value, width, height, whether EXIF swaps them; all 0 for no image."""
    try:
        with Image.open(file) as image:
            is_rotated = _orientation(image) in (5, 6, 7, 8)
            return image.mode.startswith(("I", "F")), *image.size[:: -1 if is_rotated else 1], is_rotated
    except Exception:  # Pillow raises errors of many types
        return False, 0, 0, False


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # of many types; Detectron2 then does not rotate
        return 1


def _fault(image: Entry, folder: str, find: Findings) -> tuple[str, str, str] | None:
    """Kind, remedy and example of what --skip-broken may skip; what Detectron2 would spoil is refused."""
    path = os.path.join(folder, image["file_name"])
    is_wide, width, height, is_rotated = read_header(path)
    if not width:
        kind = "Images that cannot be read, or are larger than Pillow takes (178 million pixels)"
        remedy = "Replace them, or give --skip-broken {}."
        return (kind, remedy, image["file_name"]) if os.path.exists(path) else None
    if not image["height"]:
        return None  # refused already
    if is_wide:
        kind = "Images of 16 bits or more a value, which would be clipped at 255 (white)"
        find.refuse(kind, "Convert them to 8 bits.", image["file_name"])
    elif is_rotated and (height, width) == (image["width"], image["height"]) != (width, height):
        kind = "Images with an EXIF orientation, by which Detectron2 rotates them, but not their objects"
        remedy = "Rotate the pixels and remove the tag, or annotate the rotated images."
        find.refuse(kind, remedy, image["file_name"])
    elif (width, height) != (image["width"], image["height"]):
        what = f"{image['file_name']} has {width} x {height} pixels"
        return "Images of another size than the file says", "Correct height and width.", what
    return None
