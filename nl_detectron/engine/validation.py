"""TEST.LOSS_IMAGES: the losses of the test sets, to compare with the training's."""

import copy
import logging
from collections import Counter

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data.build import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
)
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nl_detectron.data import Record
from nl_detectron.data.loaders import build_validation_loader

from .evaluation import evaluation_tasks

logger = logging.getLogger(__name__)


def validation_losses(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """The mean losses of a model in training, and their sum "total_loss", by name.

    With several test sets a name is SET/LOSS. A set whose objects lack what the model learns has none.
    Images are resized as in an evaluation, and not augmented. The model stays as it is: the losses are those
    of a copy, with the running statistics of its norms. RetinaNet has none: its losses depend on the batches
    before.
    """
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, _NormBase):
            module.eval()
    found: dict[str, float] = {}
    for name in cfg.DATASETS.TEST:
        if records := _records(cfg, name):
            logger.info("Computing the losses on %d images of %s", len(records), name)
            prefix = f"{name}/" if len(cfg.DATASETS.TEST) > 1 else ""
            found |= {f"{prefix}{key}": loss for key, loss in _mean_losses(cfg, model, records).items()}
    return found


def _records(cfg: CfgNode, name: str) -> list[Record]:
    """Up to TEST.LOSS_IMAGES images that a training would take, evenly taken from a test set."""
    # Others learn more than COCO's annotations, or divide by a running mean of the training, as RetinaNet.
    if cfg.MODEL.META_ARCHITECTURE != "GeneralizedRCNN" or cfg.MODEL.LOAD_PROPOSALS:
        return []
    needed = {"segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    if {task for task, is_needed in needed.items() if is_needed} - {*evaluation_tasks(cfg, name)}:
        return []
    records = [record for record in DatasetCatalog.get(name) if "annotations" in record]
    records = filter_images_with_only_crowd_annotations(records)
    if cfg.MODEL.KEYPOINT_ON:
        least = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
        records = filter_images_with_few_keypoints(records, least)
    count = min(cfg.TEST.LOSS_IMAGES, len(records))
    return [records[place] for place in np.linspace(0, len(records) - 1, count).round().astype(int)]


def _mean_losses(cfg: CfgNode, model: nn.Module, records: list[Record]) -> dict[str, float]:
    sums, images = Counter(), 0
    gpus = [cfg.MODEL.DEVICE] if cfg.MODEL.DEVICE.startswith("cuda") else []
    # A storage of its own, as models count their samples in the training's; the seed, as they draw them
    with torch.no_grad(), EventStorage(1), torch.random.fork_rng(gpus):
        for batch in build_validation_loader(cfg, records):
            torch.manual_seed(0)
            sums.update({name: loss.item() for name, loss in model(batch).items()})
            images += 1
    parts = comm.all_gather((sums, images))
    total = sum(count for _, count in parts)
    names = sorted({name for part, _ in parts for name in part})
    means = {name: sum(part[name] for part, _ in parts) / total for name in names}
    return {"total_loss": sum(means.values()), **means}
