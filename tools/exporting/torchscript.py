"""TorchScript of a whole detector, by scripting or by tracing; masks are not yet pasted into the image."""

import warnings
from copy import deepcopy
from pathlib import Path

import torch
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes
from torch import Tensor, nn

from .detections import clipped, compare_all, detect
from .files import refused, write_checked

# Scripting has to know the type of every field that a model gives its Instances.
FIELDS = {
    "proposal_boxes": Boxes,
    "objectness_logits": Tensor,
    "pred_boxes": Boxes,
    "scores": Tensor,
    "pred_classes": Tensor,
    "pred_masks": Tensor,
    "pred_keypoints": Tensor,
    "pred_keypoint_heatmaps": Tensor,
}


def export_script(model: nn.Module, images: tuple[Tensor, ...], output: Path) -> None:
    """Script a detector, for any number of images of any sizes at a time.

    The file's forward takes a list of {"image": (3, H, W)} and returns a list of dicts of tensors.

    Raises:
        UserError: if the model cannot be scripted, or the file does not do what the model does.
    """
    is_rcnn = isinstance(model, GeneralizedRCNN)
    inputs = [{"image": image} for image in images]

    def export(path: Path) -> None:
        print("scripting the model", flush=True)
        copied = deepcopy(model)  # scripting takes its ResNet apart
        adapter = (_ScriptedRCNN if is_rcnn else _ScriptedRetinaNet)(copied).eval()
        with refused("this model cannot be scripted", "Use --format torchscript-trace."):
            torch.jit.save(scripting_with_instances(adapter, FIELDS), path)

    def check(path: Path) -> float:
        print("checking it on a batch of two images of two sizes", flush=True)
        found = torch.jit.load(path)(inputs)
        if not is_rcnn:
            found = [clipped(*pair) for pair in zip(found, images, strict=True)]
        return compare_all(found, detect(model, inputs))

    write_checked(output, export, check)


def export_trace(model: nn.Module, images: tuple[Tensor, ...], output: Path) -> None:
    """Trace a detector on the first image, for one image of any size at a time.

    The file's forward takes (3, H, W) and returns a tuple of tensors, whose names are printed.

    Raises:
        UserError: if the model cannot be traced, or the file does not do what the model does.
    """
    adapter = TracingAdapter(model, images[0], lambda model, image: detect(model, [{"image": image}])[0])

    def export(path: Path) -> None:
        print("tracing the model", flush=True)
        # The warnings are of values that a trace freezes: whether they matter, the check shows.
        with refused("this model cannot be traced", "See docs/export.md."), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(adapter.eval(), (images[0],), check_trace=False), path)
        print(f"its outputs: {', '.join(adapter.outputs_schema.keys)}", flush=True)

    def check(path: Path) -> float:
        print("checking it on two images of two sizes", flush=True)
        traced, names = torch.jit.load(path), adapter.outputs_schema.keys
        found = [dict(zip(names, traced(image), strict=True)) for image in images]
        return compare_all(found, [detect(model, [{"image": image}])[0] for image in images])

    write_checked(output, export, check)


class _ScriptedRCNN(nn.Module):
    """Gives dicts instead of Instances, whose scripted class cannot be loaded in another process."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        instances = self.model.inference(inputs, do_postprocess=False)
        return [i.get_fields() for i in instances]


class _ScriptedRetinaNet(_ScriptedRCNN):
    def forward(self, inputs: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        instances = self.model(inputs)
        return [i.get_fields() for i in instances]
