"""ONNX of a whole detector, for one image of any size: boxes, masks and keypoints.

By PyTorch's older exporter (dynamo=False). It is deprecated, but takes detectors: it converts a trace, and
torchvision defines NMS and RoIAlign for it. The newer one (of 2.14) ends with "Could not guard on
data-dependent expression", because Detectron2 pads images by sizes that it holds in tensors.
"""

import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from unittest import mock

import detectron2
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.export import TracingAdapter
from detectron2.modeling.roi_heads import BaseKeypointRCNNHead, BaseMaskRCNNHead, keypoint_head
from torch import Tensor, nn

import nl_detectron
from nl_detectron.predictor import complete_metadata

from .checking import Detections, check_detections, checked_file
from .torchscript import detect

OPSET = 17  # RoIAlign with aligned=True needs 16
ABOVE_ALL = torch.tensor(2.0)  # a threshold that no score passes

Case = tuple[Tensor, Tensor]  # the inputs: an image (C, H, W) and a threshold ()


def export_detector(
    model: nn.Module, images: tuple[Tensor, Tensor], output: Path, metadata: Mapping[str, object]
) -> None:
    """Write a detector, with metadata whose values are JSON.

    The graph takes `image` (C, H, W) and `score_threshold` (), which detections exceed. Its outputs are the
    fields of R detections, R >= 0; their names are printed.
    """
    import onnx  # optional: `check_packages` has looked for it

    model = deepcopy(model)  # its thresholds and heads change
    default = torch.tensor(float(_with_threshold(model)[0].test_score_thresh))
    cases = [(images[0], ABOVE_ALL), (images[0], default), (images[1], default)]
    expected, seconds = _timed(partial(_detect, model), cases)
    names = sorted(expected[0])
    print(f"exporting the model; its outputs: {', '.join(names)}", flush=True)
    for head in model.modules():
        if isinstance(head, (BaseMaskRCNNHead, BaseKeypointRCNNHead)):
            head.layers = partial(_with_one_more, head.layers)
    example = (images[0], torch.tensor(0.0))  # a trace of boxes, whatever the image
    options = {"dynamo": False, "opset_version": OPSET, "output_names": names}
    options["input_names"] = ["image", "score_threshold"]
    options["dynamic_axes"] = {"image": [1, 2], **{name: [0] for name in names}}
    with checked_file(output) as path:
        with warnings.catch_warnings(), mock.patch.object(keypoint_head, "heatmaps_to_keypoints", _decode):
            warnings.simplefilter("ignore")  # of values that a trace freezes: the check shows if they matter
            torch.onnx.export(TracingAdapter(model, example, _detect).eval(), example, str(path), **options)
        file = onnx.load(path)
        onnx.helper.set_model_props(file, {key: json.dumps(value) for key, value in metadata.items()})
        onnx.save(file, path)
        _check(path, cases, expected, seconds)


def metadata_of(cfg: CfgNode) -> dict[str, object]:
    """What programs without the config need to know."""
    node = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    names = complete_metadata(cfg)
    metadata = {"thing_classes": list(names.thing_classes)}
    if cfg.MODEL.KEYPOINT_ON:
        metadata["keypoint_names"] = list(names.keypoint_names)
    metadata |= {f"INPUT.{key}": cfg.INPUT[key] for key in ("FORMAT", "MIN_SIZE_TEST", "MAX_SIZE_TEST")}
    metadata |= {f"MODEL.{key}": cfg.MODEL[key] for key in ("PIXEL_MEAN", "PIXEL_STD")}
    packages = (nl_detectron, detectron2, torch)
    versions = {package.__name__: str(package.__version__) for package in packages}
    return metadata | {"score_threshold": node.SCORE_THRESH_TEST, "versions": versions}


def _with_threshold(model: nn.Module) -> list[nn.Module]:
    """RetinaNet itself, or the box predictors of the RoI heads, of which a cascade has several."""
    return [module for module in model.modules() if hasattr(module, "test_score_thresh")]


def _detect(model: nn.Module, image: Tensor, threshold: Tensor) -> Detections:
    for module in _with_threshold(model):
        module.test_score_thresh = threshold
    fields = detect(model, image)[0]
    fields.pop("pred_keypoint_heatmaps", None)  # 21 MB for 100 persons, all in `pred_keypoints`
    return fields


def _with_one_more(layers: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The layers of a head for x (R, C, S, S). One more map passes: ONNX cannot flatten maps of R = 0."""
    return layers(F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1)))[: x.shape[0]]


@torch.jit.script_if_tracing
def _decode(maps: Tensor, boxes: Tensor) -> Tensor:
    """Detectron2's `heatmaps_to_keypoints` in operations that ONNX has.

    It resizes the maps of a box to its size in pixels, by cubic interpolation. Here products with a resized
    unit matrix do that, because onnxruntime takes 10 times as long to resize maps.

    Args:
        maps: (R, K, S, S).
        boxes: (R, 4).

    Returns:
        (R, K, 4): x, y, logit and score.
    """
    count, side = maps.shape[1], maps.shape[2]
    unit = torch.eye(side).reshape(1, 1, side, side)
    sizes = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = sizes.ceil().to(torch.int64)
    found = torch.zeros((0, count, 4))
    for i in range(boxes.shape[0]):
        wide = F.interpolate(unit, size=[int(pixels[i, 0]), side], mode="bicubic", align_corners=False)
        high = F.interpolate(unit, size=[int(pixels[i, 1]), side], mode="bicubic", align_corners=False)
        resized = torch.matmul(torch.matmul(high.reshape(-1, side), maps[i]), wide.reshape(-1, side).t())
        row_logits, columns = resized.max(dim=2)  # (K, height)
        logit, y = row_logits.max(dim=1, keepdim=True)
        place = torch.cat([columns.gather(1, y), y], dim=1).to(torch.float32)
        place = (place + 0.5) * (sizes[i] / sizes[i].ceil()) + boxes[i, :2]
        score = (maps[i].reshape(count, -1) - logit).exp().sum(dim=1, keepdim=True).reciprocal()
        found = torch.cat([found, torch.cat([place, logit, score], dim=1).unsqueeze(0)])
    return found


def _timed(
    find: Callable[[Tensor, Tensor], Detections], cases: Sequence[Case]
) -> tuple[list[Detections], float]:
    """What is found in the cases, and the CPU seconds of the second; the first is a warm-up."""
    found, seconds = [], []
    for case in cases:
        start = time.process_time()
        found.append(find(*case))
        seconds.append(time.process_time() - start)
    return found, seconds[1]


def _check(path: Path, cases: Sequence[Case], expected: Sequence[Detections], eager_seconds: float) -> None:
    """Compare what onnxruntime finds, with its optimization of graphs and without."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        print(f"checking it with {level}: without detections, and at two sizes", flush=True)
        found, seconds = _timed(partial(_run, session, sorted(expected[0])), cases)
        check_detections(found, expected)
        print(f"  CPU seconds for the second: {seconds:.2f}, eager {eager_seconds:.2f}", flush=True)


def _run(session: object, names: Sequence[str], image: Tensor, threshold: Tensor) -> Detections:
    values = session.run(names, {"image": image.numpy(), "score_threshold": threshold.numpy()})
    return dict(zip(names, map(torch.from_numpy, values), strict=True))
