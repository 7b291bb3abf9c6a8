"""Checks of a command line before anything is built: one clear line instead of Detectron2's depths."""

import argparse
import difflib
import os
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from nl_detectron.config import check_placement_is_used
from nl_detectron.errors import UserError


def check(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse what would fail only after minutes of loading.

    Raises:
        UserError: naming the key or flag, the rule, the value and the remedy.
    """
    check_placement_is_used(cfg, given=args.opts[::2])
    for key in ("TEST",) if args.eval_only else ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            _check_dataset(f"DATASETS.{key}", name)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN must name a data set to train on; got none.")
    resumes = args.resume and (Path(cfg.OUTPUT_DIR) / "last_checkpoint").is_file()
    if not resumes:
        _check_weights(cfg.MODEL.WEIGHTS)
    if cfg.TEST.AUG.ENABLED and (cfg.MODEL.KEYPOINT_ON or cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN"):
        raise UserError(
            "TEST.AUG.ENABLED must be False for this model; got True. "
            "Detectron2 has test-time augmentation for the boxes and masks of GeneralizedRCNN only."
        )
    _check_processes(args)


def _check_processes(args: argparse.Namespace) -> None:
    available = torch.cuda.device_count()
    if not 0 <= args.num_gpus <= max(available, 1):
        raise UserError(
            f"--num-gpus must be from 1 to the {available} GPUs of this machine; got {args.num_gpus}."
        )
    if args.num_machines > 1 and not available:
        raise UserError(
            f"--num-machines must be 1 where there is no GPU; got {args.num_machines}. "
            "Several machines need one or more GPUs each."
        )


def _check_dataset(key: str, name: str) -> None:
    if name not in DatasetCatalog.list():
        near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3)
        remedy = f"Did you mean {' or '.join(near)}?" if near else "See datasets/README.md."
        raise UserError(f"{key} must name registered data sets; got {name!r}. {remedy}")
    metadata = MetadataCatalog.get(name)
    for path in (metadata.get("json_file"), metadata.get("image_root")):
        if path and "://" not in path and not Path(path).exists():
            root = os.environ.get("DETECTRON2_DATASETS", "not set, so ./datasets")
            raise UserError(
                f"{key} must name data sets that are there; {name!r} needs {path}, which does not exist. "
                f"Set DETECTRON2_DATASETS ({root}) to the folder that holds it: see datasets/README.md."
            )


def _check_weights(weights: str) -> None:
    path = weights.split("?")[0]  # Detectron2 main reads options after a question mark
    if weights and "://" not in weights and not Path(path).is_file():
        raise UserError(
            f"MODEL.WEIGHTS must be a file or a URL; got {weights!r}, and there is no such file. "
            'Correct the path, or set it to "" to start from scratch.'
        )
