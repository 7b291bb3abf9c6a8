"""TorchScript of a whole detector, by scripting or by tracing; masks are not yet pasted into the image."""

import warnings
from copy import deepcopy
from pathlib import Path
from typing import Final

import torch
from detectron2.export import TracingAdapter, scripting_with_instances
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .checking import Detections, check_detections, checked_file

FIELDS = {  # scripting has to know the type of every field that a model gives its Instances
    **dict.fromkeys(("proposal_boxes", "pred_boxes"), Boxes),
    **dict.fromkeys(("objectness_logits", "scores", "pred_classes", "pred_masks"), Tensor),
    **dict.fromkeys(("pred_keypoints", "pred_keypoint_heatmaps"), Tensor),
}


def detect(model: nn.Module, *images: Tensor) -> list[Detections]:
    """What eager PyTorch detects in a batch of images (3, H, W), in their pixels."""
    inputs = [{"image": image} for image in images]
    if isinstance(model, GeneralizedRCNN):
        return [_plain(instances) for instances in model.inference(inputs, do_postprocess=False)]
    return [_plain(output["instances"]) for output in model(inputs)]


def export_script(model: nn.Module, images: tuple[Tensor, Tensor], output: Path) -> None:
    """Script a detector, for any number of images of any sizes at a time.

    The file's forward takes a list of {"image": (3, H, W)} and returns a list of dicts of tensors.
    """
    with checked_file(output) as path:
        print("scripting the model", flush=True)
        adapter = _Scripted(deepcopy(model)).eval()  # of a copy: scripting takes its ResNet apart
        _save(scripting_with_instances(adapter, FIELDS), path)
        print("checking it on a batch of two images of two sizes", flush=True)
        found = torch.jit.load(path)([{"image": image} for image in images])
        if not adapter.is_rcnn:
            found = [_clipped(*pair) for pair in zip(found, images, strict=True)]
        check_detections(found, detect(model, *images))


def export_trace(model: nn.Module, images: tuple[Tensor, Tensor], output: Path) -> None:
    """Trace a detector on the first image, for one image of any size at a time.

    The file's forward takes (3, H, W) and returns a tuple of tensors, whose names are printed.
    """
    adapter = TracingAdapter(model, images[0], lambda model, image: detect(model, image)[0])
    with checked_file(output) as path:
        print("tracing the model", flush=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that a trace freezes: the check shows if they matter
            _save(torch.jit.trace(adapter.eval(), (images[0],), check_trace=False), path)
        names = adapter.outputs_schema.keys
        print(f"its outputs: {', '.join(names)}\nchecking it on two images of two sizes", flush=True)
        traced = torch.jit.load(path)
        found = [dict(zip(names, traced(image), strict=True)) for image in images]
        check_detections(found, [detect(model, image)[0] for image in images])


def _save(module: torch.jit.ScriptModule, path: Path) -> None:
    with path.open("wb") as file:  # given a path, PyTorch refuses some names, as those without a suffix
        torch.jit.save(module, file)


def _plain(instances: Instances) -> Detections:
    fields = instances.get_fields()
    return {name: value.tensor if isinstance(value, Boxes) else value for name, value in fields.items()}


def _clipped(fields: Detections, image: Tensor) -> Detections:
    """Boxes clipped to the image: eager RetinaNet does it after its inference, scripted RetinaNet doesn't."""
    height, width = image.shape[1:]
    instances = Instances((height, width), **{**fields, "pred_boxes": Boxes(fields["pred_boxes"])})
    return _plain(detector_postprocess(instances, height, width))


class _Scripted(nn.Module):
    """Gives dicts instead of Instances, whose scripted class cannot be loaded in another process."""

    is_rcnn: Final[bool]  # so that only one of the two calls is compiled

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.is_rcnn = isinstance(model, GeneralizedRCNN)

    def forward(self, inputs: list[dict[str, Tensor]]) -> list[dict[str, Tensor]]:
        if self.is_rcnn:  # noqa: SIM108  TorchScript would compile both sides
            instances = self.model.inference(inputs, do_postprocess=False)
        else:
            instances = self.model(inputs)
        return [i.get_fields() for i in instances]
