"""Departures from COCO's format as annotation tools and converters write them, by what must come of each."""

import json
from collections.abc import Callable
from pathlib import Path

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
    "iscrowd missing": (each(iscrowd=...), "iscrowd", {}),
    "iscrowd null": (each(iscrowd=None), "iscrowd", {}),
    "iscrowd text": (each(iscrowd="0"), "iscrowd", {}),
    "iscrowd false": (each(iscrowd=False), "iscrowd", {}),
    "iscrowd true": (one(iscrowd=True), "iscrowd", {"iscrowd": 1}),
    "ignore": (one(ignore=1), "ignore", {"iscrowd": 1}),
    "ignore null": (each(ignore=None), "ignore", {}),
    "area missing": (each(area=...), "area", {}),
    "area null": (each(area=None), "area", {}),
    "area 0": (each(area=0), "area", {}),
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
    "segmentation empty": (one(segmentation=[]), "segmentation empty", {"segmentation": ...}),
    "num_keypoints missing": (each(num_keypoints=...), "num_keypoints", {}),
    "num_keypoints wrong": (one(num_keypoints=17), "num_keypoints", {}),
    "keypoints null": (one(keypoints=None), "unlabelled", {"keypoints": [0] * 9, "num_keypoints": 0}),
    "keypoints missing": (one(keypoints=...), "unlabelled", {"keypoints": [0] * 9, "num_keypoints": 0}),
    "root category": (roots, "a root category", {}),
    "width missing": (image(width=...), "images whose height or width", {}),
    "size -1": (image(width=-1, height=0), "images whose height or width", {}),
    "size null": (image(width=None, height=None), "images whose height or width", {}),
    "size text": (image(width="96"), "images whose height or width", {}),
    "backslashes": (rename(lambda name: f"birds\\{name}"), "file names of another machine", {}),
    "another machine": (rename(lambda name: f"/home/ann/birds/{name}"), "file names of another", {}),
    "another drive": (rename(lambda name: f"D:\\birds\\{name}"), "file names of another machine", {}),
    "suffix in capitals": (rename(lambda name: name.replace("png", "PNG")), "file names of another", {}),
    "spaces as in a URL": (rename(lambda name: name.replace(".", "%2E")), "file names of another", {}),
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

# What no one can mend: what the message names.
REFUSED: dict[str, tuple[Change, str]] = {
    "image that is not there": (one(image_id=999), r"image_id is not in the file .*annotation 4 .*999"),
    "image_id null": (one(image_id=None), r"image_id is not in the file .*annotation 4 has image_id None"),
    "image_id list": (one(image_id=[1]), r"image_id is not in the file .*annotation 4 has image_id \[1\]"),
    "category that is not there": (one(category_id=7), "category_id is not in the file .*annotation 4"),
    "image ids missing": (image(id=...), r"Images without an id .*4\.png"),
    "image id of two": (image(id=1), "Ids that several images have .*1"),
    "category id of two": (second({"id": 1, "name": "cat"}), "Ids that several categories have"),
    "keypoints by name": (each(keypoints={"beak": 1}), "keypoints that are not"),
    "category names twice": (second({"id": 2, "name": "bird"}), "Names that several categories have .*bird"),
    "no name": (category(name=...), "categories without a name"),
    "no file name": (image(file_name=...), "images without a file_name"),
    "all crowd": (each(iscrowd=1), "Every object is a crowd .*iscrowd to 0"),
    "iscrowd 2": (one(iscrowd=2), r"iscrowd .*annotation 4 of 4\.png: 2"),
    "bbox x0 y0 x1 y1": (
        each(bbox=lambda o: [*o["bbox"][:2], o["bbox"][0] + 36, o["bbox"][1] + 22]),
        "look like x0, y0, x1, y1",
    ),
    "bbox fractions": (each(bbox=lambda o: [side / 96 for side in o["bbox"]]), "look like fractions"),
    "bbox that nothing gives": (
        one(bbox=[1, 2, 3, -4], segmentation=..., keypoints=...),
        r"bbox that is no box.*annotation 4 of 4\.png: \[1, 2, 3, -4\]",
    ),
    "bbox nan": (
        one(bbox=[1, 2, 3, float("nan")], segmentation=..., keypoints=...),
        "bbox that is no box.*nan",
    ),
    "polygon of an odd count": (one(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "segmentation that is neither"),
    "polygon of text": (one(segmentation=[["a"] * 6]), r"segmentation .*annotation 4 of 4\.png"),
    "polygon of nan": (one(segmentation=[[float("nan")] * 6]), "segmentation that is neither"),
    "rle of another size": (
        one(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
        r"RLE\) of another size.*annotation 4 of 4\.png: \[96, 80\]",
    ),
    "rle that does not fit": (
        one(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        "counts do not fill",
    ),
    "rle cut off": (
        one(segmentation=lambda o: {**to_rle(o), "counts": to_rle(o)["counts"][:-2]}),
        "counts do not fill",
    ),
    "keypoints of another count": (one(keypoints=[1, 2, 2]), "keypoints that are not 3 finite numbers"),
    "keypoints nan": (one(keypoints=[float("nan")] * 9), "keypoints that are not 3 finite numbers"),
    "keypoint names twice": (category(keypoints=["a", "a", "b"]), "not names, each once"),
    "keypoints by category": (
        second({"id": 2, "name": "cat", "keypoints": ["nose", "tail", "ear"]}),
        "Categories with other keypoints",
    ),
    "sigmas": (category(sigmas=[0.1]), "sigmas that do not fit .*Give 3"),
    "skeleton": (category(skeleton=[[1, 9]]), "skeleton with numbers that no keypoint has"),
    "flip_pairs": (category(flip_pairs=[["beak"]]), "flip_pairs that are not pairs"),
    "flip_pairs twice": (
        category(flip_pairs=[["beak", "left_wing"], ["beak", "right_wing"]]),
        "flip_pairs that are not pairs",
    ),
    "file missing": (lambda _, folder: (folder / "4.png").unlink(), r"file is not there .*4\.png"),
    "16 bits": (
        rewrite(lambda picture: Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 9)),
        r"Images of 16 bits.*4\.png",
    ),
    "exif rotated": (rewrite(lambda picture: picture, ".jpg", exif=exif(6)), r"EXIF orientation.*4\.jpg"),
    "another size": (image(height=96, width=80), r"another size than the file .*4\.png has 96 x 80"),
    "no size and no image": (
        lambda c, folder: ((folder / "4.png").write_text("x"), c["images"][3].pop("width")),
        r"without a size whose file cannot be read .*4\.png",
    ),
    "objects that are none": (lambda c, _: c["annotations"].append(5), "not JSON objects .*5"),
}
