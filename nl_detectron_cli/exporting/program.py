"""What tools/export.py does after parsing its command line."""

import argparse
from pathlib import Path

import nl_detectron_shapes  # noqa: F401  (registers shapes_train and the like, which a config may name)
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from torch import Tensor, nn

from nl_detectron.checkpoint import load_weights
from nl_detectron.config import check_non_local_keys
from nl_detectron.engine import read_config
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.inspect import in_format, read_image
from nl_detectron.modeling import non_local_blocks

from . import onnx_detector, onnx_graphs, torchscript

# Of whole detectors: functions of the model, two images to check the file on, and the file.
TORCHSCRIPT = {
    "torchscript-script": torchscript.export_script,
    "torchscript-trace": torchscript.export_trace,
}
# Of parts of a model: functions of the model, and the folder or file.
PARTS = {"onnx-block": onnx_graphs.export_blocks, "onnx-backbone": onnx_graphs.export_backbone}


def run(args: argparse.Namespace) -> None:
    """Run a command line of tools/export.py."""
    with one_line_errors(), torch.no_grad():
        cfg, given = read_config(args)
        check_non_local_keys(cfg, given)
        wanted = "folder" if args.format == "onnx-block" else "file"
        if args.output.exists() and args.output.is_dir() == (wanted == "file"):
            raise UserError(f"--output {str(args.output)!r} is not a {wanted}. Give one for {args.format}.")
        if args.format.startswith("onnx"):
            onnx_graphs.check_packages(args.format)
        if args.format in PARTS:
            PARTS[args.format](load_model(cfg, args.allow_mismatch), args.output)
            return
        check_detector(cfg, args.format)
        images = sample_images(cfg, args.input)
        model = load_model(cfg, args.allow_mismatch)
        if args.format == "onnx":
            onnx_detector.export_detector(model, images, args.output, onnx_detector.metadata_of(cfg))
        else:
            TORCHSCRIPT[args.format](model, images, args.output)


def check_detector(cfg: CfgNode, kind: str) -> None:
    """Reject a detector that this format cannot hold, naming a format that can."""
    model = cfg.MODEL
    if model.META_ARCHITECTURE not in ("GeneralizedRCNN", "RetinaNet"):
        limit, other = f"MODEL.META_ARCHITECTURE {model.META_ARCHITECTURE}", "onnx-backbone"
    elif model.ROI_HEADS.NAME == "CascadeROIHeads" and kind == "torchscript-script":
        limit, other = "MODEL.ROI_HEADS.NAME CascadeROIHeads", "torchscript-trace"
    elif any(model.RESNETS.DEFORM_ON_PER_STAGE):
        limit, other = "MODEL.RESNETS.DEFORM_ON_PER_STAGE", "onnx-backbone or onnx-block"
    else:
        return
    raise UserError(f"{kind} cannot hold {limit}. Use {other}.")


def load_model(cfg: CfgNode, allow_mismatch: bool = False) -> nn.Module:
    """The model with MODEL.WEIGHTS; without them a trial with random weights, which keeps all detections."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    if not cfg.MODEL.WEIGHTS:
        print("MODEL.WEIGHTS is empty: this is a trial with random weights, which keeps all detections.")
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    model = build_model(cfg).eval().requires_grad_(False)
    if cfg.MODEL.WEIGHTS:
        print(load_weights(model, cfg.MODEL.WEIGHTS, allow_mismatch))
    else:
        _enliven(model)
    for name, block in non_local_blocks(model):
        x = torch.randn(1, block.in_channels, 8, 8)
        if (block(x) - x).abs().max() < 0.01 * x.abs().max():
            print(f"{name} adds little or nothing to its input: the check would miss a wrong block.")
    return model


def sample_images(cfg: CfgNode, path: Path | None) -> tuple[Tensor, Tensor]:
    """An image (None: noise) of the size that the config tests at, and it in another size and shape.

    Returns:
        Two (C, H, W) of float32 from 0 to 255, their channels in the order of INPUT.FORMAT.
    """
    if path is None:
        print("Without --input the file is checked on noise, in which a trained model may find nothing.")
        pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    else:
        pixels = read_image(path)
    pixels = in_format(pixels, cfg.INPUT.FORMAT)
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    pixels = resize.get_transform(pixels).apply_image(pixels)
    image = torch.tensor(pixels.transpose(2, 0, 1).copy()).float()
    height, width = image.shape[1:]
    return image, F.interpolate(image[None], (height * 3 // 4, width // 2), mode="bilinear")[0]


def _enliven(model: nn.Module) -> None:
    """Make random weights worth checking: scale layers of ResNets, blocks and RetinaNet to outputs of size 1.

    Otherwise features grow through frozen norms until rounding decides a softmax, new blocks are the
    identity, and RetinaNet gives all boxes one score.
    """
    blocks = [block for _, block in non_local_blocks(model)]
    for block in blocks:
        block.out.weight.normal_()
        if block.out.norm is not None:
            block.out.norm.weight.fill_(1.0)
    parts = [module for module in model.modules() if isinstance(module, (ResNet, RetinaNetHead))] + blocks
    layers = {layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d)}
    layers |= {block.out for block in blocks}
    hooks = {}

    def to_unit_size(layer: nn.Module, _: tuple[Tensor], out: Tensor) -> Tensor:
        hooks.pop(layer).remove()  # RetinaNet's head has one scale for all levels: that of the first
        size = out.std().clamp(min=1e-6)
        norm = getattr(layer, "norm", None)
        (layer if norm is None else norm).weight.div_(size)
        return out / size

    hooks.update({layer: layer.register_forward_hook(to_unit_size) for layer in layers})
    model([{"image": 255 * torch.rand(len(model.pixel_mean), 256, 320)}])
