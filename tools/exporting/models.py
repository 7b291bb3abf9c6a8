"""The model of a config, in evaluation mode on the CPU, and the images that an export is checked on."""

from pathlib import Path

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from nl_detectron.errors import reported_as_user_errors
from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import non_local_blocks
from nl_detectron.predictor import load_weights

NOISE = (480, 640, 3)


def load_model(cfg: CfgNode, allow_mismatch: bool = False) -> nn.Module:
    """The model with MODEL.WEIGHTS, for inference; without them a trial of the export, which it says.

    The trial has a score threshold of 0, as a model of random weights is sure of nothing.

    Args:
        allow_mismatch: export a model that the checkpoint does not hold all of.

    Raises:
        UserError: if the checkpoint cannot be loaded, or not without `allow_mismatch`.
    """
    cfg = cfg.clone()
    if not cfg.MODEL.WEIGHTS:
        print("MODEL.WEIGHTS is empty: random weights, all detections kept; a trial of the export only")
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    with reported_as_user_errors("Detectron2 cannot build this model"):
        model = build_model(cfg).eval()
    if cfg.MODEL.WEIGHTS:
        print(load_weights(model, cfg.MODEL.WEIGHTS, allow_mismatch))
    else:
        with reported_as_user_errors("this model has no trial: give MODEL.WEIGHTS"):
            _enliven(model)
    for name, block in non_local_blocks(model):
        if adds_little(block):
            print(
                f"{name} adds little or nothing to its input, as before training: the check sees little of it"
            )
    return model.requires_grad_(False)


@torch.no_grad()
def adds_little(block: NonLocalBlock) -> bool:
    """Whether z is next to x, as in a new block: a wrong W_z y would hide in x then."""
    x = torch.randn(1, block.in_channels, 8, 8)
    return bool((block(x) - x).abs().max() < 0.01 * x.abs().max())


def sample_images(cfg: CfgNode, path: Path | None) -> tuple[Tensor, Tensor]:
    """An image of the size that the config tests at, and it in another size and shape.

    Args:
        path: of the image; None for noise.

    Returns:
        Two (3, H, W) of float32 from 0 to 255, their channels in the order of INPUT.FORMAT.
    """
    if path is None:
        print("no --input: checked on noise, in which a trained model may find nothing")
        pixels = torch.randint(0, 256, NOISE, generator=torch.Generator().manual_seed(0)).byte().numpy()
    else:
        with reported_as_user_errors(f"--input {str(path)!r} cannot be read"):
            pixels = detection_utils.read_image(str(path), format=cfg.INPUT.FORMAT)
    resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    pixels = resize.get_transform(pixels).apply_image(pixels)
    image = torch.tensor(pixels.transpose(2, 0, 1).copy()).float()
    height, width = image.shape[1:]
    other = F.interpolate(image[None], (height * 3 // 4, width // 2), mode="bilinear")[0]
    return image, other


def _enliven(model: nn.Module) -> None:
    """Make random weights worth checking: features of a trained network's size, blocks that do something.

    Frozen norms of no statistics would let features grow without end, to where rounding decides a softmax.
    """
    for resnet in (module for module in model.modules() if isinstance(module, ResNet)):
        resnet.stem.conv1.weight.data.mul_(min(1.0, model.pixel_std.mean().item() / 58))
        for name, tensor in resnet.state_dict().items():
            if name.endswith("conv3.norm.weight"):
                tensor.fill_(0.2)
    hooks = [block.register_forward_hook(_rescale) for _, block in non_local_blocks(model)]
    for _, block in non_local_blocks(model):
        block.out.weight.data.normal_()
        scale = getattr(block.out.norm, "weight", None)
        if scale is not None:
            scale.data.fill_(1.0)
    with torch.no_grad():
        model([{"image": 255 * torch.rand(3, 256, 320)}])
    for hook in hooks:
        hook.remove()


def _rescale(block: NonLocalBlock, inputs: tuple[Tensor], z: Tensor) -> Tensor:
    """Set the scale of what a block adds to half of x, whatever its pairwise function."""
    (x,) = inputs
    factor = 0.5 * x.std() / (z - x).std()
    last = block.out if block.out.norm is None else block.out.norm
    last.weight.data.mul_(factor)
    return x + factor * (z - x)
