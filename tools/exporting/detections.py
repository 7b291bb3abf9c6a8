"""What a detector detects, as dicts of tensors, and how close two such dicts are."""

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from .files import TOLERANCE

SAME = 0.95
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


def compare_all(found: list[Detections], expected: list[Detections]) -> float:
    """The largest difference over several images; and a word of caution if all of them are empty."""
    if not any(len(fields["scores"]) for fields in expected):
        print("nothing is detected, so nothing is compared: give another --input", flush=True)
    return max(compare(*pair) for pair in zip(found, expected, strict=True))


def compare(found: Detections, expected: Detections) -> float:
    """Print how many detections are the same, and return their largest difference.

    Which boxes suppress which, and where a heatmap is largest, is decided by values that may be as good as
    equal: rounding changes single detections. So SAME of them have to be the same to TOLERANCE.

    Returns:
        The largest difference among these as a fraction of the field's largest value, or of all
        detections (inf if their number differs) if too few are the same.
    """
    total = max(len(found["scores"]), len(expected["scores"]))
    differences = _differences(found, expected)
    same = differences <= TOLERANCE
    print(
        f"  {len(found['scores'])} detections, eager {len(expected['scores'])}; the same: {same.sum()}",
        end="",
    )
    if same.sum() < SAME * total:
        largest = differences.max().item() if len(same) == len(found["scores"]) else float("inf")
    else:
        largest = differences[same].max().item() if total else 0.0
    print(f", to {largest:.1e}", flush=True)
    return largest


def _differences(found: Detections, expected: Detections) -> Tensor:
    """(R,) of the R expected detections: the largest of any field, as a fraction of its largest value."""
    count = len(expected["scores"])
    if found.keys() != expected.keys() or not count or not len(found["scores"]):
        return torch.full((count,), float("inf"))
    order = _counterparts(found, expected)
    found, expected = _by_unit(found), _by_unit(expected)
    differences = []
    for name, value in expected.items():
        absolute = (found[name][order].double() - value.double()).abs().reshape(count, -1).amax(1)
        differences.append(absolute / value.double().abs().max().clamp(min=torch.finfo().tiny))
    return torch.stack(differences).amax(0)


def _counterparts(found: Detections, expected: Detections) -> Tensor:
    """For every expected detection the found one next to it: rounding may swap those of equal scores."""
    distance = (expected["pred_boxes"][:, None] - found["pred_boxes"]).abs().sum(2)  # (R, R)
    distance += (expected["scores"][:, None] - found["scores"]).abs()
    other_class = expected["pred_classes"][:, None] != found["pred_classes"]
    distance = distance.masked_fill(other_class, float("inf"))
    return distance.argmin(1)


def _by_unit(fields: Detections) -> Detections:
    """pred_keypoints (R, K, 3) are pixels in x and y, and scores without a bound that would hide those."""
    if "pred_keypoints" not in fields:
        return fields
    places, scores = fields["pred_keypoints"].split([2, 1], dim=2)
    return {**fields, "pred_keypoints": places, "keypoint scores": scores}


def _plain(instances: Instances) -> Detections:
    fields = instances.get_fields()
    return {name: value.tensor if isinstance(value, Boxes) else value for name, value in fields.items()}
