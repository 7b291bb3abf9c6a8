"""Departures from COCO's format as annotation tools and converters write them, by what must come of each."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from unicodedata import normalize

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

WIDTH, HEIGHT = 96, 80
NAMES = ["beak", "left_wing", "right_wing"]
Content = dict[str, list[dict]]
Change = Callable[[Content, Path], object]


def plain(folder: Path, images: int = 6, *, keypoints: bool = True) -> Content:
    """Draw birds, each with a box, a mask and keypoints, and return their COCO file."""
    folder.mkdir(parents=True, exist_ok=True)
    content: Content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "bird"}]}
    if keypoints:
        content["categories"][0] |= {"keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
        content["categories"][0] |= {"sigmas": [0.05] * 3, "flip_pairs": [["left_wing", "right_wing"]]}
    for k, (x, y) in enumerate(np.random.default_rng(0).integers(24, 56, (images, 2)).tolist(), start=1):
        corners = [(x, y - 12), (x - 18, y + 10), (x + 18, y + 10)]
        picture = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
        cv2.fillPoly(picture, [np.array(corners)], (40, 80, 160))
        cv2.imwrite(str(folder / f"{k}.png"), picture)
        content["images"].append({"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH})
        bird = {"id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "area": 396.0}
        bird |= {"bbox": [x - 18.0, y - 12.0, 36.0, 22.0]}
        bird |= {"segmentation": [[float(value) for corner in corners for value in corner]]}
        if keypoints:
            bird |= {"keypoints": [v for corner in corners for v in (*corner, 2)], "num_keypoints": 3}
        content["annotations"].append(bird)
    return content


def write(content: object, folder: Path) -> Path:
    path = folder.with_suffix(".json")
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def each(**fields: object) -> Change:
    """Give all objects these fields; without a field whose value is ..."""
    return lambda content, _: [_change(object_, fields) for object_ in content["annotations"]]


def one(**fields: object) -> Change:
    """The same for the fourth object."""
    return lambda content, _: _change(content["annotations"][3], fields)


def image(**fields: object) -> Change:
    """The same for the fourth image."""
    return lambda content, _: _change(content["images"][3], fields)


def category(**fields: object) -> Change:
    return lambda content, _: _change(content["categories"][0], fields)


def _change(entry: dict, fields: dict[str, object]) -> None:
    for name, value in fields.items():
        value = value(entry) if callable(value) else value
        if value is ...:
            entry.pop(name, None)
        else:
            entry[name] = value


def points_of(object_: dict) -> list[list[float]]:
    polygon = object_["segmentation"][0]
    return [list(point) for point in zip(polygon[::2], polygon[1::2], strict=True)]


def to_rle(object_: dict) -> dict[str, object]:
    compressed = rle.merge(rle.frPyObjects(object_["segmentation"], HEIGHT, WIDTH))
    return {"size": compressed["size"], "counts": compressed["counts"].decode()}


def as_text(key: str, field: str) -> Change:
    return lambda content, _: [_change(entry, {field: lambda e: str(e[field])}) for entry in content[key]]


def roots(content: Content, _: Path) -> None:
    content["categories"][0]["supercategory"] = "birds-3x"
    content["categories"].insert(0, {"id": 0, "name": "birds-3x", "supercategory": "none"})


def second(category: dict) -> Change:
    return lambda content, _: content["categories"].append(category)


def rle_in_rows(object_: dict) -> dict[str, object]:
    """Counted along rows, and not along columns."""
    mask = rle.decode(to_rle(object_))
    return {"size": [HEIGHT, WIDTH], "counts": [len([*run]) for run in runs_of(mask.ravel())]}


def runs_of(pixels: np.ndarray) -> list[list[int]]:
    """The first is of zeros."""
    ends = [0, *(np.flatnonzero(np.diff(pixels)) + 1).tolist(), len(pixels)]
    return [[*range(a, b)] for a, b in pairwise(ends)]


def rename(change: Callable[[str], str]) -> Change:
    """Change how the file names are written, not the files."""

    def renamed(content: Content, _: Path) -> None:
        for entry in content["images"]:
            entry["file_name"] = change(entry["file_name"])

    return renamed


def into_folders(content: Content, folder: Path) -> None:
    for entry in content["images"]:
        place = Path("deep", "er", entry["file_name"].upper())
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / entry["file_name"]).rename(folder / place)


def accents(content: Content, folder: Path) -> None:
    (folder / "4.png").rename(folder / normalize("NFD", "4é.png"))
    content["images"][3]["file_name"] = "4é.png"


def per_cent(content: Content, folder: Path) -> None:
    (folder / "4.png").rename(folder / "4%20.png")
    content["images"][3]["file_name"] = "C:\\birds\\4%20.png"


def rewrite(convert: Callable[[Image.Image], Image.Image], suffix: str = ".png", **options: object) -> Change:
    """Write the fourth file anew."""

    def rewritten(content: Content, folder: Path) -> None:
        entry = content["images"][3]
        picture = Image.open(folder / entry["file_name"]).convert("RGB")
        entry["file_name"] = Path(entry["file_name"]).with_suffix(suffix).name
        convert(picture).save(folder / entry["file_name"], **options)

    return rewritten


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


# What becomes the plain file again, but for ids and for what the third column says of the fourth object.
MENDED: dict[str, tuple[Change, str, dict[str, object]]] = {
    "annotation ids missing": (each(id=...), "ids of annotations", {}),
    "annotation ids from 0": (each(id=lambda o: o["id"] - 1), "ids of annotations", {}),
    "annotation id twice": (one(id=1), "ids of annotations", {}),
    "annotation ids as text": (each(id=lambda o: f"a{o['id']}"), "ids of annotations", {}),
    "image ids as text in images": (as_text("images", "id"), "ids of images written as text", {}),
    "image ids as text, two of one number": (
        lambda c, _: [
            entry.update({key: "0" * entry[key]})
            for key, name in (("id", "images"), ("image_id", "annotations"))
            for entry in c[name]
        ],
        "ids of images that are no numbers",
        {},
    ),
    "image ids as text in objects": (
        as_text("annotations", "image_id"),
        "image_id written in another way",
        {},
    ),
    "category ids as text": (as_text("categories", "id"), "ids of categories written as text", {}),
    "image ids as floats": (
        lambda c, _: [_change(entry, {"id": lambda e: float(e["id"])}) for entry in c["images"]],
        "ids of images written as 1.0",
        {},
    ),
    "category id as a float": (each(category_id=1.0), "category_id written in another way", {}),
    "image twice": (lambda c, _: c["images"].append(dict(c["images"][2])), "images that are in the file", {}),
    "all in the file twice": (
        lambda c, _: [c[name].extend(json.loads(json.dumps(c[name]))) for name in ("images", "annotations")],
        "annotations that are in the file twice: now once",
        {},
    ),
    "objects twice, by other ids": (
        lambda c, _: c["annotations"].extend([{**o, "id": o["id"] + 9.5} for o in c["annotations"]]),
        "annotations that are in the file twice: now once",
        {},
    ),
    "file of two images": (
        lambda c, _: (
            c["images"].append({**c["images"][3], "id": 77}),
            c["annotations"].append({**c["annotations"][3], "id": 77, "image_id": 77}),
        ),
        "images of one file: now one, with the objects of all",
        {},
    ),
    "iscrowd missing": (each(iscrowd=...), "iscrowd", {}),
    "iscrowd null": (each(iscrowd=None), "iscrowd", {}),
    "iscrowd text": (each(iscrowd="0"), "iscrowd", {}),
    "iscrowd false": (each(iscrowd=False), "iscrowd", {}),
    "iscrowd true": (one(iscrowd=True), "iscrowd", {"iscrowd": 1}),
    "ignore": (one(ignore=1), "ignore", {"iscrowd": 1}),
    "ignore no": (each(ignore="no"), "ignore", {}),
    "ignore null": (each(ignore=None), "ignore", {}),
    "area missing": (each(area=...), "area", {}),
    "area null": (each(area=None), "area", {}),
    "area 0": (each(area=0), "area", {}),
    "area 1": (each(area=1), "area", {}),
    "area of the image": (each(area=WIDTH * HEIGHT), "area", {}),
    "area of the box": (each(area=36.0 * 22), "area", {}),
    "bbox missing": (each(bbox=...), "bbox", {}),
    "bbox null": (each(bbox=None), "bbox", {}),
    "bbox text": (each(bbox=lambda o: str(o["bbox"])), "bbox", {}),
    "bbox of texts": (each(bbox=lambda o: [str(side) for side in o["bbox"]]), "bbox", {}),
    "bbox of no size": (each(bbox=lambda o: [*o["bbox"][:2], 0, 0]), "bbox", {}),
    "bbox negative": (one(bbox=lambda o: [*o["bbox"][:2], -3, -5]), "bbox", {}),
    "bbox of keypoints": (each(bbox=[], segmentation=..., area=396.0), "bbox", {"segmentation": ...}),
    "polygon not nested": (each(segmentation=lambda o: o["segmentation"][0]), "polygons not nested", {}),
    "polygon of points": (each(segmentation=points_of), "polygons not nested", {}),
    "polygons of points": (each(segmentation=lambda o: [points_of(o)]), "polygons not nested", {}),
    "part of two points": (
        one(segmentation=lambda o: [[1, 1, 9, 9], *o["segmentation"]]),
        "parts of fewer than 3",
        {},
    ),
    "part without points": (one(segmentation=lambda o: [[], *o["segmentation"]]), "parts of fewer", {}),
    "rle without a pixel": (
        one(segmentation={"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}),
        "without a pixel",
        {"segmentation": ...},
    ),
    "polygon of one point": (one(segmentation=[[0] * 6]), "of one point: now none", {"segmentation": ...}),
    "segmentation empty": (one(segmentation=[]), "segmentation empty", {"segmentation": ...}),
    "num_keypoints missing": (each(num_keypoints=...), "num_keypoints", {}),
    "num_keypoints wrong": (one(num_keypoints=17), "num_keypoints", {}),
    "keypoints null": (one(keypoints=None), "unlabelled", {"keypoints": [0] * 9, "num_keypoints": 0}),
    "keypoints missing": (one(keypoints=...), "unlabelled", {"keypoints": [0] * 9, "num_keypoints": 0}),
    "root category": (roots, "a root category", {}),
    "width missing": (image(width=...), "images whose height or width", {}),
    "size -1": (image(width=-1, height=0), "images whose height or width", {}),
    "size null": (image(width=None, height=None), "images whose height or width", {}),
    "sizes as floats": (image(width=96.0, height=80.0), "height or width written as 640.0", {}),
    "size text": (image(width="96"), "images whose height or width", {}),
    "backslashes": (rename(lambda name: f"birds\\{name}"), "file names of another machine", {}),
    "another machine": (rename(lambda name: f"/home/ann/birds/{name}"), "file names of another", {}),
    "another drive": (rename(lambda name: f"D:\\birds\\{name}"), "file names of another machine", {}),
    "suffix in capitals": (rename(lambda name: name.replace("png", "PNG")), "file names of another", {}),
    "spaces as in a URL": (rename(lambda name: name.replace(".", "%2E")), "file names of another", {}),
    "accents as macOS writes them": (accents, "file names of another machine", {}),
    "a per cent sign": (per_cent, "file names of another machine", {}),
    "a file of two images, of another machine": (
        lambda c, _: (c["images"].append({**c["images"][3], "id": 77}), rename("/home/ann/{}".format)(c, _)),
        "images of one file: now one, with the objects of all",
        {},
    ),
    "in sub-folders": (into_folders, "file names of another machine", {}),
}

# What passes as it is.
KEPT: dict[str, Change] = {
    "plain": lambda *_: None,
    "rle": each(segmentation=to_rle),
    "uncompressed rle of a crowd": one(
        segmentation={"size": [HEIGHT, WIDTH], "counts": [400, HEIGHT * WIDTH - 400]}, iscrowd=1, area=7000
    ),
    "image ids as text everywhere": lambda c, _: [
        _change(e, {k: lambda o, k=k: f"frame {o[k]}"})
        for key, k in (("images", "id"), ("annotations", "image_id"))
        for e in c[key]
    ],
    "image ids from 0": lambda c, _: [
        _change(e, {k: lambda o, k=k: o[k] - 1})
        for key, k in (("images", "id"), ("annotations", "image_id"))
        for e in c[key]
    ],
    "category id 0": lambda c, _: (each(category_id=0)(c, _), category(id=0)(c, _)),
    "categories with gaps": second({"id": 90, "name": "plane"}),
    "no annotations": lambda c, _: c.pop("annotations"),
    "palette": rewrite(lambda picture: picture.quantize(4)),
    "alpha": rewrite(lambda picture: picture.convert("RGBA")),
    "cmyk": rewrite(lambda picture: picture.convert("CMYK"), ".jpg"),
    "exif that agrees": rewrite(
        lambda picture: picture.transpose(Image.Transpose.ROTATE_90), ".jpg", exif=exif(6)
    ),
}
