"""Writing the shapes in COCO's format.

`write_drawings` serves any pictures that are drawn as lists of `Drawn` objects.
"""

import errno
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES, KEYPOINT_CONNECTION_RULES
from tqdm import tqdm

from nl_detectron.errors import UserError

from .drawing import CATEGORIES, Drawn, draw_image

SPLITS = ("train", "val")
_KINDS = ("instances", "person_keypoints")  # of the files
_RECORD = "generator.json"
_GENERATOR = 2  # counts up with every change of what is drawn

# Draws a picture, by the index of its split and its own index in it.
Draw = Callable[[int, int], tuple[np.ndarray, list[Drawn]]]


def write_shapes(folder: Path, *, train: int, val: int, size: int = 160, seed: int = 0) -> bool:
    """Draw the shapes into `folder`, as `write_drawings` does.

    An image depends on the seed, its split and its index alone, so a larger set of the same seed begins with
    the smaller one.

    Args:
        train, val: how many images.
        size: their height and width in pixels.
    """

    def draw(split: int, index: int) -> tuple[np.ndarray, list[Drawn]]:
        return draw_image(np.random.default_rng([seed, split, index]), size)

    return write_drawings(folder, CATEGORIES, draw, {"train": train, "val": val, "size": size, "seed": seed})


def write_drawings(
    folder: Path, categories: Sequence[str], draw: Draw, parameters: Mapping[str, int | str]
) -> bool:
    """Draw a data set into `folder`, which appears only when it is complete.

    Args:
        folder: the data set's own: `train/`, `val/` and `annotations/` come into it.
        categories: of all that `draw` draws.
        parameters: train, val, size and seed, and whatever else decides the pictures. They are recorded.

    Returns:
        False if `folder` already holds this very data set, which is then kept.

    Raises:
        UserError: for a number out of range, or if `folder` holds anything else.
    """
    train, val, size, seed = (parameters[key] for key in ("train", "val", "size", "seed"))
    if min(train, val) < 1 or size < 64 or seed < 0:
        raise UserError(
            "--train and --val must be at least 1, --size at least 64 and --seed at least 0; "
            f"got {train}, {val}, {size} and {seed}."
        )
    record = json.dumps({"generator": _GENERATOR, **parameters})
    if _is_complete(folder, parameters) and (folder / _RECORD).read_text() == record:
        return False
    if folder.exists():
        file = folder / _RECORD
        held = file.read_text() if file.is_file() else "not drawn by this program"
        raise UserError(f"{folder} holds another data set ({held}). Remove it, or choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".shapes-") as temporary:
        unfinished = Path(temporary) / "shapes"
        (unfinished / "annotations").mkdir(parents=True)
        for split in range(len(SPLITS)):
            _write_split(unfinished, split, parameters[SPLITS[split]], categories, draw)
        (unfinished / _RECORD).write_text(record)
        os.rename(unfinished, folder)
    return True


def _is_complete(folder: Path, parameters: Mapping[str, int | str]) -> bool:
    files = [folder / _RECORD]
    for split in SPLITS:
        files += [folder / "annotations" / f"{kind}_{split}.json" for kind in _KINDS]
        files += [folder / split / f"{index:012d}.jpg" for index in range(parameters[split])]
    return all(file.is_file() for file in files)


def _write_split(folder: Path, split: int, count: int, categories: Sequence[str], draw: Draw) -> None:
    """The images of a split, its instances_*.json and its person_keypoints_*.json."""
    name = SPLITS[split]
    (folder / name).mkdir()
    images, annotations = [], []
    for index in tqdm(range(count), desc=f"drawing {name}", unit="image"):
        pixels, drawn = draw(split, index)
        file = folder / name / f"{index:012d}.jpg"
        if not cv2.imwrite(str(file), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OSError(errno.EIO, "cannot be written", str(file))
        height, width = pixels.shape[:2]
        images.append({"id": index, "file_name": file.name, "height": height, "width": width})
        for object_ in drawn:
            ids = {"id": len(annotations) + 1, "image_id": index}
            annotations.append({**ids, **_annotation(object_, categories)})
    people = [{**a, "category_id": 1} for a in annotations if "keypoints" in a]
    others = [{k: v for k, v in a.items() if "keypoints" not in k} for a in annotations]
    named = [{"id": k, "name": category} for k, category in enumerate(categories, start=1)]
    contents = {"instances": (others, named), "person_keypoints": (people, [_person()])}
    for kind, (objects, known) in contents.items():
        info = {"description": f"drawn by nl_detectron, {name}"}
        content = {"info": info, "images": images, "annotations": objects, "categories": known}
        (folder / "annotations" / f"{kind}_{name}.json").write_text(json.dumps(content))


def _annotation(drawn: Drawn, categories: Sequence[str]) -> dict[str, object]:
    """COCO's annotation of an object: polygons, or RLE for a crowd."""
    rle = mask_util.encode(np.asfortranarray(drawn.mask, np.uint8))
    if drawn.iscrowd:
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode("ascii")}
    else:
        segmentation = _polygons(drawn.mask)
        rle = mask_util.merge(mask_util.frPyObjects(segmentation, *drawn.mask.shape))
    annotation = {
        "category_id": categories.index(drawn.category) + 1,
        "iscrowd": int(drawn.iscrowd),
        "segmentation": segmentation,
        "area": float(mask_util.area(rle)),
        "bbox": mask_util.toBbox(rle).tolist(),
    }
    if drawn.keypoints is not None:
        annotation["keypoints"] = drawn.keypoints.flatten().tolist()
        annotation["num_keypoints"] = int(np.count_nonzero(drawn.keypoints[:, 2]))
    return annotation


def _polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask's parts, as COCO has them: pixel i is from i to i + 1. Holes are filled.

    OpenCV's contours run through the centres of pixels; through those of half pixels they come within
    a quarter of a pixel of the outline.
    """
    halves = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(halves, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [((contour.flatten() + 0.5) / 2).tolist() for contour in contours]


def _person() -> dict[str, object]:
    names = list(COCO_PERSON_KEYPOINT_NAMES)
    skeleton = [[names.index(a) + 1, names.index(b) + 1] for a, b, _ in KEYPOINT_CONNECTION_RULES]
    return {"id": 1, "name": "person", "keypoints": names, "skeleton": skeleton}
