"""Registering drawn data sets with Detectron2."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
)

from .drawing import CATEGORIES

logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """The folder of all data sets: DETECTRON2_DATASETS, or ./datasets, as in Detectron2."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def add_drawing_flags(parser: argparse.ArgumentParser, size: int) -> None:
    """Add the flags of a program that draws a data set; `size` is the default."""
    text = "folder of all data sets; DETECTRON2_DATASETS if that is set (default: %(default)s)"
    parser.add_argument("--root", type=Path, default=datasets_root(), help=text)
    parser.add_argument("--train", type=int, default=800, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=size, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: %(default)s)")


def register_shapes(root: Path) -> None:
    """Register shapes_{train,val} and keypoints_shapes_{train,val}, whose files are in `root`/shapes."""
    register_drawn("shapes", root / "shapes", CATEGORIES)


def register_drawn(name: str, folder: Path, categories: Sequence[str]) -> None:
    """Register `name`_{train,val} and keypoints_`name`_{train,val}, whose files are in `folder`.

    Called again, it moves them to the new folder. A name that another data set has is left
    alone, with a warning.
    """
    keypoints = {
        "thing_classes": ["person"],
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
    }
    instances = {"thing_classes": list(categories)}
    kinds = {"": ("instances", instances), "keypoints_": ("person_keypoints", keypoints)}
    for split in ("train", "val"):
        for prefix, (kind, metadata) in kinds.items():
            json_file = folder / "annotations" / f"{kind}_{split}.json"
            _register(f"{prefix}{name}_{split}", metadata, json_file, folder / split)


def _register(dataset: str, metadata: dict[str, object], json_file: Path, images: Path) -> None:
    if dataset in DatasetCatalog.list():
        if not MetadataCatalog.get(dataset).get("is_drawn"):
            logger.warning("%s is another data set already, and is kept", dataset)
            return
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)
    register_coco_instances(dataset, {**metadata, "is_drawn": True}, str(json_file), str(images))
