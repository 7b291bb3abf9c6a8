"""Mask R-CNN with and without a block in res4, on one image of 800 x 1333 pixels with random weights."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from nl_detectron import locate_in_float32, model_zoo

from .measure import Run, compare, comparison

SIZE = (800, 1333)
CONFIG = "COCO-InstanceSegmentation/mask_rcnn_{}_FPN{}_1x.yaml"
MODELS = ("R_50", "R_101", "X_152_32x8d")
HEADERS = ["model", "pass", "+1 NL ms", "baseline ms", "ratio", "+1 NL MB", "baseline MB", "ratio"]


def run_models(name: str) -> Iterator[list[str]]:
    """Inference, then forward and backward pass in training, as rows of a table."""
    device = torch.device("cpu")
    models = build_pair(name, device)
    for training in (False, True):
        runs: list[Run] = [partial(run, model, torch.float32, training) for model in models]
        new, old = compare(runs, device, seconds=0)
        yield [name, "training" if training else "inference", *comparison(new, old)]


def build_pair(name: str, device: torch.device) -> tuple[nn.Module, nn.Module]:
    """The model with a block and its baseline, of the same weights: a new block is the identity, so both find
    the same regions, and do the same work with them.
    """
    model, baseline = (_build(CONFIG.format(name, suffix), device) for suffix in ("_nl", ""))
    model.load_state_dict(baseline.state_dict(), strict=False)
    return model, baseline


def _build(config: str, device: torch.device) -> nn.Module:
    """A model of random weights that gives 100 detections, as many as COCO's evaluation takes."""
    cfg = model_zoo.get_config(config)
    cfg.MODEL.DEVICE = str(device)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    model = build_model(cfg)
    for name, buffer in model.named_buffers():
        if name.endswith("conv3.norm.weight"):  # or random weights would let features grow without end
            buffer.fill_(0.2)
    return locate_in_float32(model)


def _sample() -> dict[str, object]:
    """An image with one object."""
    left, top, right, bottom = 100.0, 100.0, 500.0, 400.0
    objects = Instances(SIZE)
    objects.gt_boxes = Boxes(torch.tensor([[left, top, right, bottom]]))
    objects.gt_classes = torch.tensor([0])
    objects.gt_masks = PolygonMasks([[np.array([left, top, right, top, right, bottom])]])
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": objects}


def run(model: nn.Module, dtype: torch.dtype, training: bool, batch: int = 1) -> None:
    """Inference, or forward and backward pass, of a batch of images."""
    model.train(training).zero_grad(set_to_none=True)
    torch.manual_seed(0)  # which draws regions
    with EventStorage(), torch.set_grad_enabled(training):
        with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
            results = model([_sample()] * batch)
        if training:
            sum(results.values()).backward()
