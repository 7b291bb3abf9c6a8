"""Checks of a command line before anything is built: one clear line instead of Detectron2's depths."""

import argparse
import difflib
import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.config import check_placement_is_used


def check(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse what would fail only after minutes of loading.

    Raises:
        ValueError: naming the key or flag, the rule, the value and the remedy.
    """
    check_placement_is_used(cfg)
    for key in ("TEST",) if args.eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            _check_dataset(f"DATASETS.{key}", name)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise ValueError("DATASETS.TRAIN must name a data set to train on; got none.")
    resumes = args.resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").is_file()
    if not resumes:
        _check_weights(cfg.MODEL.WEIGHTS)
    if cfg.TEST.AUG.ENABLED and cfg.MODEL.KEYPOINT_ON:
        raise ValueError(
            "TEST.AUG.ENABLED must be False for a keypoint model; got True. "
            "Detectron2's test-time augmentation has no keypoints."
        )
    available = torch.cuda.device_count()
    if args.num_gpus > max(available, 1):
        raise ValueError(
            f"--num-gpus must be at most the {available} GPUs of this machine; got {args.num_gpus}."
        )


def _check_dataset(key: str, name: str) -> None:
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "See datasets/README.md."
        raise ValueError(f"{key} must name registered data sets; got {name!r}. {remedy}")
    metadata = MetadataCatalog.get(name)
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path and "://" not in path and not Path(path).exists():
            root = os.environ.get("DETECTRON2_DATASETS", "not set, so ./datasets")
            raise ValueError(
                f"{key} must name data sets that are there; {name!r} needs {path}, which does not exist. "
                f"Set DETECTRON2_DATASETS ({root}) to the folder that holds it: see datasets/README.md."
            )


def _check_weights(weights: str) -> None:
    if weights and "://" not in weights and not Path(weights).is_file():
        raise ValueError(
            f"MODEL.WEIGHTS must be a file or a URL; got {weights!r}, and there is no such file. "
            'Correct the path, or set it to "" to start from scratch.'
        )
