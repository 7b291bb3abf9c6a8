"""What a detector detects, as dicts of tensors, and how close two such dicts are."""

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .files import difference

Detections = dict[str, Tensor]  # by field, R detections each: pred_boxes (R, 4), scores (R,), ...


def detect(model: nn.Module, inputs: list[dict[str, Tensor]]) -> list[Detections]:
    """What eager PyTorch detects, in pixels of its inputs; the masks not yet pasted into the image."""
    if isinstance(model, GeneralizedRCNN):
        instances = model.inference(inputs, do_postprocess=False)
    else:
        instances = [output["instances"] for output in model(inputs)]
    return [_plain(i) for i in instances]


def clipped(fields: Detections, image: Tensor) -> Detections:
    """As eager RetinaNet does after its inference, and scripted RetinaNet does not."""
    height, width = image.shape[1:]
    boxes = Boxes(fields["pred_boxes"])
    instances = Instances((height, width), **{**fields, "pred_boxes": boxes})
    return _plain(detector_postprocess(instances, height, width))


def compare(found: Detections, expected: Detections) -> float:
    """Print and return the largest difference of any field, as a fraction of its largest value."""
    count = len(expected["scores"])
    print(f"  {len(found['scores'])} detections, eager {count}", end="", flush=True)
    if found.keys() != expected.keys() or len(found["scores"]) != count:
        print()
        return float("inf")
    order = _counterparts(found, expected)
    differences = {name: difference(found[name][order], value) for name, value in expected.items()}
    print("; " + ", ".join(f"{name} {value:.1e}" for name, value in differences.items()), flush=True)
    return max(differences.values())


def _counterparts(found: Detections, expected: Detections) -> Tensor:
    """For every expected detection the found one next to it: rounding may swap those of equal scores."""
    distance = (expected["pred_boxes"][:, None] - found["pred_boxes"]).abs().sum(2)  # (R, R)
    distance += (expected["scores"][:, None] - found["scores"]).abs()
    other_class = expected["pred_classes"][:, None] != found["pred_classes"]
    distance = distance.masked_fill(other_class, float("inf"))
    return distance.argmin(1) if len(distance) else torch.arange(0)


def _plain(instances: Instances) -> Detections:
    fields = instances.get_fields()
    return {name: value.tensor if isinstance(value, Boxes) else value for name, value in fields.items()}
