"""The forecast of a run: a line for the log, and a refusal of what cannot fit."""

import logging
import os
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import forecast_non_local, non_local_blocks

logger = logging.getLogger(__name__)

TTA_BATCH = 3  # images at once in Detectron2's GeneralizedRCNNWithTTA


def report_forecast(cfg: CfgNode, model: nn.Module, training: bool) -> None:
    """Log what the non-local blocks need in each kind of pass of this run, for its largest images.

    Raises:
        UserError: if they alone need more memory than the device has.
    """
    for line, is_large in forecast_lines(cfg, model, training, comm.get_world_size()):
        (logger.warning if is_large else logger.info)("%s", line)


def forecast_lines(
    cfg: CfgNode, model: nn.Module, training: bool, processes: int
) -> Iterator[tuple[str, bool]]:
    """A line for each kind of pass, and whether it is over half the memory of the device.

    Args:
        processes: how many share the images of a step.

    Raises:
        UserError: as `report_forecast`.
    """
    if not any(non_local_blocks(model)):
        return
    model = getattr(model, "module", model)  # within DistributedDataParallel
    divisor = max(1, model.backbone.size_divisibility)
    memory = _device_memory(cfg.MODEL.DEVICE)
    for what, is_training, images, rois, (height, width), remedy in _passes(cfg, training, processes):
        sides = [-(-side // divisor) * divisor for side in (height, width)]
        forecast = forecast_non_local(model, *sides, images=images, rois=rois, training=is_training)
        need = (
            f"{forecast.peak / 2**30:.2f} GiB and {forecast.multiply_adds / 1e9:.1f} GMAC in {what}, "
            f"for {images} image{'s' * (images > 1)} of {height} x {width}"
        )
        if forecast.peak > memory:
            raise UserError(
                f"MODEL.NON_LOCAL must fit the {memory / 2**30:.1f} GiB of {cfg.MODEL.DEVICE}; "
                f"its blocks alone need {need}. {remedy}, or place them in later stages."
            )
        is_large = forecast.peak > memory / 2
        warning = f". That is over half the memory of {cfg.MODEL.DEVICE}. {remedy} if it fails"
        yield f"Its non-local blocks need up to {need}{warning if is_large else ''}", is_large


def _passes(
    cfg: CfgNode, training: bool, processes: int
) -> Iterator[tuple[str, bool, int, int, tuple[int, int], str]]:
    """What a pass is called, whether it trains, its images, RoIs an image, largest size, and the remedy.

    Where images are not resized, nothing is known of their size.
    """
    if training and min(cfg.INPUT.MIN_SIZE_TRAIN):
        images = max(1, cfg.SOLVER.IMS_PER_BATCH // processes)
        rois = int(cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE * cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION)
        size = _largest(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN)
        yield "training", True, images, rois, size, "Lower SOLVER.IMS_PER_BATCH or INPUT.MAX_SIZE_TRAIN"
    rois = cfg.TEST.DETECTIONS_PER_IMAGE
    if cfg.INPUT.MIN_SIZE_TEST:
        size = _largest((cfg.INPUT.MIN_SIZE_TEST,), cfg.INPUT.MAX_SIZE_TEST)
        yield "inference", False, 1, rois, size, "Lower INPUT.MAX_SIZE_TEST"
    if cfg.TEST.AUG.ENABLED:
        size = _largest(cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE)
        yield "test-time augmentation", False, TTA_BATCH, rois, size, "Lower TEST.AUG.MAX_SIZE"


def _largest(short_sides: tuple[int, ...], long_side: int) -> tuple[int, int]:
    """The largest height and width that ResizeShortestEdge gives an image of any shape."""
    return min(max(short_sides), long_side), long_side


def _device_memory(device: str) -> int:
    """Bytes in all, used or not."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
