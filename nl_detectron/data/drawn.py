"""Registering data sets that are drawn: the shapes, and those of projects.

projects/shapes draws the shapes and writes them in COCO's format.
"""

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

logger = logging.getLogger(__name__)

SHAPES = ("person", "circle", "square", "triangle")  # the categories


def datasets_root() -> Path:
    """The folder of all data sets: DETECTRON2_DATASETS, or ./datasets, as in Detectron2."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_drawn(name: str, folder: Path, categories: Sequence[str] = SHAPES) -> None:
    """Register `name`_{train,val} and keypoints_`name`_{train,val}, whose files are in `folder`.

    Called again, it moves them to the new folder. A name that somebody else has registered is left alone.
    """
    keypoints = {
        "thing_classes": ["person"],
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
    }
    for split in ("train", "val"):
        instances = {"thing_classes": list(categories)}
        _register(f"{name}_{split}", instances, folder / f"annotations/instances_{split}.json")
        _register(
            f"keypoints_{name}_{split}", keypoints, folder / f"annotations/person_keypoints_{split}.json"
        )


def _register(dataset: str, metadata: dict[str, object], json_file: Path) -> None:
    if dataset in DatasetCatalog.list():
        if not MetadataCatalog.get(dataset).get("is_drawn"):
            logger.warning("%s is another data set already, and is kept", dataset)
            return
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)
    images = json_file.parents[1] / dataset.rpartition("_")[2]
    register_coco_instances(dataset, {**metadata, "is_drawn": True}, str(json_file), str(images))
