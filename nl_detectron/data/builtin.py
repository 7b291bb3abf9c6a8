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

from .coco_format import MODES, dataset_name

logger = logging.getLogger(__name__)


def datasets_root() -> Path:
    """The folder of all data sets: DETECTRON2_DATASETS, or ./datasets, as in Detectron2."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_shapes(root: Path) -> None:
    """Register shapes_{train,val} and keypoints_shapes_{train,val} in `root`/shapes, and those of the other
    modes, as shapes_far_{train,val}.

    Called again, it moves them to the new `root`. A name that somebody else has registered is left alone,
    with a warning.
    """
    keypoints = {
        "thing_classes": ["person"],
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
    }
    for mode, categories in MODES.items():
        name = dataset_name(mode)
        for split in ("train", "val"):
            instances = {"thing_classes": list(categories)}
            _register(f"{name}_{split}", instances, root / name, "instances", split)
            _register(f"keypoints_{name}_{split}", keypoints, root / name, "person_keypoints", split)


def _register(dataset: str, metadata: dict[str, object], folder: Path, kind: str, split: str) -> None:
    if dataset in DatasetCatalog.list():
        if not MetadataCatalog.get(dataset).get("drawn_by_nl_detectron"):
            logger.warning("%s is another data set already, and is kept", dataset)
            return
        DatasetCatalog.remove(dataset)
        MetadataCatalog.remove(dataset)
    json_file = folder / "annotations" / f"{kind}_{split}.json"
    register_coco_instances(dataset, metadata, str(json_file), str(folder / split))
    MetadataCatalog.get(dataset).drawn_by_nl_detectron = True
