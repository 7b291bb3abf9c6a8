"""Registers the shapes as Detectron2 does its builtin data sets, below DETECTRON2_DATASETS."""

import logging
import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import (
    COCO_PERSON_KEYPOINT_FLIP_MAP,
    COCO_PERSON_KEYPOINT_NAMES,
    KEYPOINT_CONNECTION_RULES,
)

from .shapes import CATEGORIES

logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """The folder of all data sets: DETECTRON2_DATASETS, or ./datasets, as in Detectron2."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_shapes(root: Path) -> None:
    """Register shapes_{train,val} and keypoints_shapes_{train,val} in `root`/shapes.

    Called again, it moves them to the new `root`. A name that somebody else has registered is left alone,
    with a warning.
    """
    folder = root / "shapes"
    keypoints = {
        "thing_classes": ["person"],
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
    }
    kinds = {
        ("shapes", "instances"): {"thing_classes": list(CATEGORIES)},
        ("keypoints_shapes", "person_keypoints"): keypoints,
    }
    for (name, kind), metadata in kinds.items():
        for split in ("train", "val"):
            json_file = folder / "annotations" / f"{kind}_{split}.json"
            images = folder / split
            dataset = f"{name}_{split}"
            if dataset in DatasetCatalog.list():
                if not MetadataCatalog.get(dataset).get("drawn_by_nl_detectron"):
                    logger.warning("%s is another data set already, and is kept", dataset)
                    continue
                DatasetCatalog.remove(dataset)
                MetadataCatalog.remove(dataset)
            register_coco_instances(dataset, metadata, str(json_file), str(images))
            MetadataCatalog.get(dataset).drawn_by_nl_detectron = True
