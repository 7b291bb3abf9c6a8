"""`--register-coco NAME JSON IMAGE_DIR`: a user's own data in COCO's format, by name."""

import argparse
import logging
import os
import sys
from functools import partial

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json, register_coco_instances
from detectron2.data.datasets.builtin import _PREDEFINED_SPLITS_COCO

from nl_detectron.errors import UserError

from .coco_file import CocoFile, clean_coco_file, write_clean

logger = logging.getLogger(__name__)

_COCOS = {name for splits in _PREDEFINED_SPLITS_COCO.values() for name in splits}


def register_from(args: argparse.Namespace) -> None:
    """Register what `--register-coco` names. A tool without --skip-broken takes names, and needs no image."""
    for name, json_file, image_dir in args.register_coco:
        try:
            register_coco(
                name, json_file, image_dir, getattr(args, "skip_broken", sys.maxsize), is_quiet=True
            )
        except UserError as error:
            raise UserError(f"--register-coco {error}") from None


def register_coco(
    name: str, json_file: str, image_dir: str, may_miss: int = 0, *, is_quiet: bool = False
) -> None:
    """Register a data set with Detectron2, with its classes and keypoints. The same one twice is no error.

    Args:
        may_miss: how many images may have no file, or one that cannot be read.
        is_quiet: whether the caller tells what was mended, by `tell_mended`.

    Raises:
        UserError: for a name that is taken, a file that is not there, or one that is not in COCO's format.
    """
    if name in DatasetCatalog.list():
        taken = MetadataCatalog.get(name)
        theirs = [os.path.realpath(taken.get(key, "")) for key in ("source_json", "image_root")]
        if theirs == [os.path.realpath(json_file), os.path.realpath(image_dir)]:
            return
        raise UserError(f"{name}: another data set has this name. Choose a new one.")
    try:
        file = clean_coco_file(json_file, image_dir, may_miss)
    except (UserError, OSError) as error:
        raise UserError(f"{name}: {error}") from None
    classes = [category["name"] for category in file.content["categories"]]
    metadata = {"thing_classes": classes, **file.keypoints, **_facts(json_file, file)}
    register_coco_instances(name, metadata, write_clean(file, json_file), image_dir)
    for notice in file.findings.notices:
        logger.warning("%s: %s", name, notice)
    if not is_quiet:
        tell_mended(name)


def clean_registered(name: str, may_miss: int = 0) -> None:
    """Let a data set that is registered by its json_file come through the door; not COCO's own.

    Raises:
        UserError: as `register_coco`.
    """
    metadata = MetadataCatalog.get(name)
    source, folder = metadata.get("json_file"), metadata.get("image_root")
    is_coco = metadata.get("evaluator_type") == "coco" and name not in _COCOS and source and folder
    if not is_coco or "://" in str(source) or metadata.get("source_json"):
        return
    file = clean_coco_file(source, folder, may_miss)
    clean = write_clean(file, source)
    metadata.set(**_facts(source, file))
    if clean == source:
        return
    metadata.__dict__["json_file"] = clean  # which `set` would refuse to change
    if DatasetCatalog[name].__module__ == load_coco_json.__module__:  # not a function of the user's own
        metadata.__dict__.pop("thing_dataset_id_to_contiguous_id", None)
        DatasetCatalog.pop(name)
        DatasetCatalog.register(name, partial(load_coco_json, clean, folder, name))


def _facts(source: str, file: CocoFile) -> dict[str, object]:
    """What the checks of a config ask of a data set."""
    objects = file.content.get("annotations", [])
    names = {image["id"]: image["file_name"] for image in file.content["images"]}
    without = [each for each in objects if "segmentation" not in each]
    rles = (each for each in objects if isinstance(each.get("segmentation"), dict))
    return {
        "source_json": source,
        "mended": str(file.findings),
        "has_truth": bool(objects),
        "objects_without_masks": len(without),
        "first_without_mask": next((f"annotation {o['id']} of {names[o['image_id']]}" for o in without), ""),
        "has_masks": len(without) < len(objects),
        "has_rle": not all(each["iscrowd"] for each in rles),
    }


def tell_mended(name: str) -> None:
    """Log what was mended in the file of a data set, a line a kind."""
    if mended := MetadataCatalog.get(name).get("mended"):
        logger.warning("%s departs from COCO's format. Mended in a copy:\n%s", name, mended)
