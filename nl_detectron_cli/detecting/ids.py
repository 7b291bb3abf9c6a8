"""The ids of images and categories in predictions: COCO's own where they are known."""

import json
import os
import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog

from nl_detectron.errors import UserError

_LARGEST = 2**53  # above it, numbers in JSON are not exact everywhere


def name_images(images: Sequence[Path]) -> tuple[str, dict[Path, str]]:
    """The folder that holds all images, and the name of each image relative to it."""
    absolute = {image: os.path.abspath(image) for image in images}
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute.values()])
    return folder, {image: os.path.relpath(path, folder) for image, path in absolute.items()}


def number_images(names: Mapping[Path, str], truth: Path | None) -> dict[str, int]:
    """The id of each image, by its name.

    It is that of `truth`, a COCO file, for the same file name, or else the number at the end of the name. If
    not all names have different ones, images count from 1.

    Raises:
        UserError: if `truth` lacks an image, or two images have one id.
    """
    if truth:
        of_truth = {
            entry["file_name"].replace("\\", "/"): entry["id"]
            for entry in _read(truth, "images", "file_name")
        }
        ids = {name: _find(image, of_truth, truth) for image, name in names.items()}
    else:
        ids = _count(list(names.values()))
    images: dict[int, str] = {}
    for image, name in names.items():
        other = images.setdefault(ids[name], str(image))
        if other != str(image):
            raise UserError(f"{other!r} and {str(image)!r} have one id, {ids[name]}. Leave one out.")
    return ids


def name_categories(cfg: CfgNode, metadata: Metadata, truth: Path | None) -> list[dict[str, object]]:
    """The id and the name of each class of the model, in order.

    They are those of `truth`, a COCO file, or else of the first test set, or else classes count from 0.
    A `truth` with none of the names must have as many, which the model has in the order of their ids.

    Raises:
        UserError: if `truth` has other categories than the model.
    """
    names = list(metadata.thing_classes)
    if truth:
        found = _read(truth, "categories", "name")
        by_name = {entry["name"]: entry for entry in found}
        if set(names) <= by_name.keys():
            return [by_name[name] for name in names]
        are_numbers = all(str(entry["id"]).isdecimal() for entry in found)
        in_order = sorted(found, key=lambda entry: int(entry["id"])) if are_numbers else []
        if len(in_order) != len(names) or not by_name.keys().isdisjoint(names):
            listed = f"{reprlib.repr([*by_name])}, and the model {reprlib.repr(names)}"
            raise UserError(
                f"--json-ids {str(truth)!r} has {len(found)} categories, {listed}. Give the model's own."
            )
        return in_order
    ids = _ids_of_test_set(cfg)
    ids = ids if len(ids) == len(names) else range(len(names))
    return [{"id": id_, "name": name} for id_, name in zip(ids, names, strict=True)]


def _ids_of_test_set(cfg: CfgNode) -> Sequence[int]:
    if not cfg.DATASETS.TEST:
        return ()
    name = cfg.DATASETS.TEST[0]
    metadata = MetadataCatalog.get(name)
    key = "thing_dataset_id_to_contiguous_id"  # Detectron2 reads it from the file, if it is not COCO's own
    if not metadata.get(key) and Path(metadata.get("json_file") or "").is_file():
        DatasetCatalog.get(name)
    ids = metadata.get(key) or {}
    return sorted(ids, key=ids.get)


def _read(path: Path, key: str, name: str) -> list[dict[str, object]]:
    try:
        entries = [{"id": entry["id"], name: entry[name]} for entry in json.loads(path.read_bytes())[key]]
        if all(isinstance(value, (int, float, str)) for entry in entries for value in entry.values()):
            return [{**entry, name: str(entry[name])} for entry in entries]
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    what = f"lacks {key!r} with an 'id' and a {name!r} each"
    raise UserError(f"--json-ids {str(path)!r} is not a COCO file: it {what}.")


def _find(image: Path, ids: Mapping[str, int], truth: Path) -> int:
    """The id of the longest file name with which the path of the image ends."""
    parts = Path(os.path.abspath(image)).parts
    for k in range(1, len(parts)):
        if (name := "/".join(parts[k:])) in ids:
            return ids[name]
    raise UserError(f"--json-ids {str(truth)!r} has no image of the name of {str(image)!r}.")


def _count(names: Iterable[str]) -> dict[str, int]:
    found = [re.search(r"[0-9]+$", Path(name).stem) for name in names]
    numbers = {int(match[0]) for match in found if match}
    if len(numbers) == len(found) and max(numbers) < _LARGEST:
        return {name: int(match[0]) for name, match in zip(names, found, strict=True)}
    return {name: k for k, name in enumerate(names, start=1)}
