"""Mask R-CNN with and without a block in res4: parameters, multiply-adds, time, memory."""

from dataclasses import dataclass

import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from nl_detectron import model_zoo
from nl_detectron.inspect import Counts, extra_cost

from .measure import Result, compare, table

HEIGHT, WIDTH = 800, 1333
CONFIG = "COCO-InstanceSegmentation/mask_rcnn_{}_FPN{}_1x.yaml"
MODELS = {"R_50": 3, "R_101": 1, "X_152_32x8d": 1}  # and how often their inference is timed
WHO = {"baseline": "", "+1 NL": "_nl"}  # and what stands for it in the config's name


@dataclass
class ModelCase:
    """Of a baseline and of the model with a block; multiply-adds with 1000 proposals and 100 detections."""

    name: str
    counts: dict[str, Counts]
    inference: dict[str, Result]
    training: dict[str, Result]


def run_models(name: str, device: torch.device, dtype: torch.dtype) -> ModelCase:
    """One image of 800 x 1333 pixels; training is the forward and backward pass."""
    counts = extra_cost(model_zoo.get_config(CONFIG.format(name, "_nl")), HEIGHT, WIDTH)
    models = {who: _build(CONFIG.format(name, suffix), device) for who, suffix in WHO.items()}
    detect = {who: lambda model=model: _detect(model, dtype) for who, model in models.items()}
    train = {who: lambda model=model: _train(model, dtype) for who, model in models.items()}
    return ModelCase(
        name,
        dict(zip(WHO, counts, strict=True)),
        compare(detect, device, seconds=0, rounds=MODELS[name]),
        compare(train, device, seconds=0, rounds=1),
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
    return {"image": torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)}


def _detect(model: nn.Module, dtype: torch.dtype) -> None:
    model.eval()
    with torch.no_grad(), _autocast(model, dtype):
        model([_image()])


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


def model_table(cases: list[ModelCase]) -> str:
    """The baseline, and what a block adds to it."""
    rows = []
    for case in cases:
        counts = case.counts.values()
        quantities = {
            "parameters, M": [c.parameters / 1e6 for c in counts],
            "GMAC": [c.multiply_adds / 1e9 for c in counts],
        }
        for name, results in (("inference", case.inference), ("training", case.training)):
            quantities[f"{name}, s"] = [result.seconds for result in results.values()]
            quantities[f"{name}, MB"] = [result.bytes / 1e6 for result in results.values()]
        for quantity, (old, new) in quantities.items():
            rows.append([case.name, quantity, f"{old:.2f}", f"{new:.2f}", f"{new / old - 1:+.1%}"])
    return table(rows, ["model", "quantity", *WHO, "added"])
