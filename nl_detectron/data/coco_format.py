"""Writing the shapes as a data set in COCO's format."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
)
from tqdm import tqdm

from nl_detectron.errors import ArgumentError, UserError

from . import far
from .shapes import CATEGORIES, Drawn, draw_image

GENERATOR = 2  # what the files say drew them; counts up with every change of what is drawn
MODES = {"plain": CATEGORIES, "far": far.CATEGORIES, "near": far.CATEGORIES}
_SPLITS = ("train", "val")
_KINDS = ("instances", "person_keypoints")
_RECORD = "generator.json"


def dataset_name(mode: str) -> str:
    """Of the folder, and in the names that are registered: shapes, shapes_far or shapes_near."""
    return "shapes" if mode == "plain" else f"shapes_{mode}"


def write_shapes(
    folder: Path, *, train: int, val: int, size: int = 160, seed: int = 0, mode: str = "plain"
) -> bool:
    """Draw the shapes data set into `folder`, which appears only when it is whole.

    An image depends on the mode, the seed, its split and its index alone, so a larger set of the same seed
    begins with the smaller one.

    Args:
        folder: the data set's own: `train/`, `val/` and `annotations/` come into it.
        train, val: how many images.
        size: their height and width in pixels.
        mode: "plain", or "far" or "near", the pairs of pictures of `far`.

    Returns:
        False if `folder` already holds this very data set, which is then kept.

    Raises:
        UserError: for a number out of range, or a mode that is not there.
        FileExistsError: if `folder` holds anything else.
    """
    parameters = _parameters(train, val, size, seed, mode)
    if _holds(folder, parameters):
        return False
    if folder.exists():
        record = folder / _RECORD
        held = record.read_text() if record.is_file() else "not of this generator"
        raise FileExistsError(
            f"{folder} holds another data set ({held}): remove it, or give another --root, "
            f"to draw {json.dumps(parameters)}."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".shapes-") as temporary:
        unfinished = Path(temporary) / "shapes"
        (unfinished / "annotations").mkdir(parents=True)
        for split, count in zip(_SPLITS, (train, val), strict=True):
            _write_split(unfinished, split, count, size, seed, mode)
        (unfinished / _RECORD).write_text(json.dumps(parameters))
        os.rename(unfinished, folder)
    return True


def _parameters(train: int, val: int, size: int, seed: int, mode: str) -> dict[str, int | str]:
    """What decides the files, as the data set records it."""
    if min(train, val) < 1 or size < 64 or seed < 0:
        raise UserError(
            "--train and --val must be at least 1, --size at least 64 and --seed at least 0; "
            f"got {train}, {val}, {size} and {seed}."
        )
    if mode not in MODES:
        raise ArgumentError("--mode", f"one of {', '.join(MODES)}", mode, "The last two are in data/far.py.")
    if mode != "plain" and (train % 2 or val % 2):
        remedy = f"The pictures of --mode {mode} come in pairs."
        raise ArgumentError("--train and --val", "even", (train, val), remedy)
    parameters: dict[str, int | str] = {
        "generator": GENERATOR,
        "train": train,
        "val": val,
        "size": size,
        "seed": seed,
    }
    if mode != "plain":
        parameters["mode"] = mode
    return parameters


def _holds(folder: Path, parameters: dict[str, int | str]) -> bool:
    """Whether `folder` is the data set of these parameters, with all of its files."""
    files = [folder / _RECORD]
    for split in _SPLITS:
        files += [folder / "annotations" / f"{kind}_{split}.json" for kind in _KINDS]
        files += [folder / split / f"{index:012d}.jpg" for index in range(parameters[split])]
    if not all(file.is_file() for file in files):
        return False
    return (folder / _RECORD).read_text() == json.dumps(parameters)


def _draw(split: str, index: int, size: int, seed: int, mode: str) -> tuple[np.ndarray, list[Drawn]]:
    key = [seed, _SPLITS.index(split)]
    if mode == "plain":
        return draw_image(np.random.default_rng([*key, index]), size)
    pair, which = divmod(index, 2)
    return far.draw_pair(np.random.default_rng([*key, pair]), size, near=mode == "near")[which]


def _write_split(folder: Path, split: str, count: int, size: int, seed: int, mode: str) -> None:
    """The images of a split, its instances_*.json and its person_keypoints_*.json."""
    (folder / split).mkdir()
    images, annotations = [], []
    for index in tqdm(range(count), desc=f"drawing {split}", unit="image"):
        pixels, drawn = _draw(split, index, size, seed, mode)
        name = f"{index:012d}.jpg"
        if not cv2.imwrite(str(folder / split / name), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95]):
            raise OSError(f"{folder / split / name} cannot be written")
        images.append({"id": index, "file_name": name, "height": size, "width": size})
        for object_ in drawn:
            annotation = {"id": len(annotations) + 1, "image_id": index, **_annotation(object_, MODES[mode])}
            annotations.append(annotation)
    description = f"nl_detectron {dataset_name(mode)} {split}"
    dataset = {"info": {"description": description}, "images": images}
    people = [{**a, "category_id": 1} for a in annotations if "keypoints" in a]
    plain = [{k: v for k, v in a.items() if "keypoints" not in k} for a in annotations]
    instances = {**dataset, "annotations": plain, "categories": _categories(MODES[mode])}
    person_keypoints = {**dataset, "annotations": people, "categories": [_person()]}
    for kind, content in zip(_KINDS, (instances, person_keypoints), strict=True):
        (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps(content))


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


def _categories(names: Sequence[str]) -> list[dict[str, object]]:
    return [{"id": index, "name": name} for index, name in enumerate(names, start=1)]


def _person() -> dict[str, object]:
    names = list(COCO_PERSON_KEYPOINT_NAMES)
    skeleton = [[names.index(a) + 1, names.index(b) + 1] for a, b, _ in KEYPOINT_CONNECTION_RULES]
    return {"id": 1, "name": "person", "keypoints": names, "skeleton": skeleton}
