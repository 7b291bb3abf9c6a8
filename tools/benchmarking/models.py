"""Mask R-CNN with and without a block in res4: parameters, multiply-adds, time, memory."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from nl_detectron import model_zoo

from .measure import Result, compare, operation_counter

HEIGHT, WIDTH = 800, 1333
CONFIG = "COCO-InstanceSegmentation/mask_rcnn_{}_FPN{}_1x.yaml"
# How often inference and training take turns; 0 is once, cold, while their memory is measured.
MODELS = {"R_50": (4, 1), "R_101": (2, 0), "X_152_32x8d": (1, 0)}
SUFFIXES = {"baseline": "", "+1 NL": "_nl"}


class ModelCase(NamedTuple):
    """Of a baseline and of the model with a block; multiply-adds without and with 100 detections."""

    name: str
    parameters: dict[str, int]
    multiply_adds: dict[str, dict[str, int]]
    inference: dict[str, Result]
    training: dict[str, Result]


def run_models(name: str, device: torch.device, dtype: torch.dtype) -> ModelCase:
    """One image of 800 x 1333 pixels; training is the forward and backward pass."""
    models = {who: _build(CONFIG.format(name, suffix), device) for who, suffix in SUFFIXES.items()}
    counts: dict[str, dict[str, int]] = {who: {} for who in models}
    inference_rounds, training_rounds = MODELS[name]
    detect = {
        who: lambda model=model, counted=counts[who]: _detect(model, dtype, counted)
        for who, model in models.items()
    }
    train = {who: lambda model=model: _train(model, dtype) for who, model in models.items()}
    inference = compare(detect, device, seconds=0, rounds=inference_rounds)
    return ModelCase(
        name,
        {who: sum(p.numel() for p in model.parameters()) for who, model in models.items()},
        {kind: {who: count[kind] for who, count in counts.items()} for kind in counts["baseline"]},
        inference,
        compare(train, device, seconds=0, rounds=training_rounds),
    )


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
    return model


def _image() -> dict[str, object]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
    return {"image": image}


def _detect(model: nn.Module, dtype: torch.dtype, counted: dict[str, int]) -> None:
    """On an image; the first time also count the multiply-adds."""
    model.eval()
    with (
        torch.no_grad(),
        _autocast(model, dtype),
        nullcontext() if counted else operation_counter() as counter,
    ):
        detections = len(model([_image()])[0]["instances"])
    if counter:
        flops = counter.get_flop_counts()
        masks = sum(sum(f.values()) for name, f in flops.items() if name.endswith("roi_heads.mask_head"))
        total = counter.get_total_flops()
        counted |= {"no detection": (total - masks) // 2, f"{detections} detections": total // 2}


def _train(model: nn.Module, dtype: torch.dtype) -> None:
    """On an image with one object."""
    left, top, right, bottom = 100.0, 100.0, 500.0, 400.0
    objects = Instances((HEIGHT, WIDTH))
    objects.gt_boxes = Boxes(torch.tensor([[left, top, right, bottom]]))
    objects.gt_classes = torch.tensor([0])
    objects.gt_masks = PolygonMasks([[torch.tensor([left, top, right, top, right, bottom]).double().numpy()]])
    model.train().zero_grad(set_to_none=True)
    with EventStorage():
        with _autocast(model, dtype):
            losses = model([{**_image(), "instances": objects}])
        sum(losses.values()).backward()


def _autocast(model: nn.Module, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32)
