"""Parameters, multiply-adds and activations of a detector by stage, and what its non-local blocks add.

One image goes through the parts of the model on PyTorch's "meta" device, whose tensors have shapes and no
values. As in Detectron2's FlopCountAnalysis and fvcore's ActivationCountAnalysis, these are counted:

- parameters, frozen ones included (the constants of FrozenBN are none);
- multiply-adds of convolutions, linear layers and matrix products; not of norms, pooling, resizing, RoIAlign,
  non-maximum suppression and sorting;
- activations: the output values of these operations.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from nl_detectron.config import baseline_of
from nl_detectron.errors import UserError

# What PyTorch's counter of FLOPs, two for a multiply-add, lacks. addcmul ends concatenation's prefix sums.
_FLOPS = flop_registry | {
    torch.ops.aten.addcmul_: lambda total, *_, **__: 2 * total.numel(),
    torch.ops.torchvision.deform_conv2d: lambda x, weight, *_, out_val, **__: (
        2 * out_val.numel() * weight[0].numel()
    ),
}

# The parts, by how the names of their modules begin. Stages of a ResNet go by their own names.
_PARTS = {
    "backbone.fpn_": "FPN",
    "backbone.top_block": "FPN",
    "backbone": "backbone",
    "proposal_generator": "RPN",
    "roi_heads.box_": "box head",
    "roi_heads.mask_": "mask head",
    "roi_heads.keypoint_": "keypoint head",
    "head": "RetinaNet head",
    "sem_seg_head": "semantic head",
}
_BLOCK = re.compile(r"\.non_local_\d+")


class Counts(NamedTuple):
    """Of a model or a part of it."""

    parameters: int
    multiply_adds: int
    activations: int


def count_by_stage(
    cfg: CfgNode, height: int = 800, width: int = 1333, proposals: int = 1000, detections: int = 100
) -> dict[str, Counts]:
    """The counts of each part of a config's model, in the order in which they run, and of each block.

    Args:
        height, width: of the image in pixels, before the model pads it.
        proposals, detections: how many regions the box head, and the mask and keypoint heads, see.

    Returns:
        Counts by part: "stem", "res2" to "res5", "FPN", "RPN", "box head" and the like without their blocks,
        and "res4.non_local_5" for a block. Their sum is the model.

    Raises:
        UserError: for a model with parts that are not Detectron2's own.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg).eval()
    if not hasattr(model, "backbone"):
        raise UserError(f"{cfg.MODEL.META_ARCHITECTURE} has no backbone, and cannot be counted.")
    counter = _Counter(model)
    image = _padded(model, torch.empty(len(cfg.MODEL.PIXEL_MEAN), height, width, device="meta"))
    with torch.no_grad(), counter:
        _run(model, image, proposals, detections)
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0]
        if module not in counter.ran and not _BLOCK.search(module):  # a block may read a child's weight
            raise UserError(f"Only models of Detectron2's own parts can be counted; {module} is none.")
        counter.add(_part(module), Counts(parameter.numel(), 0, 0))
    return {part: counts for part, counts in counter.counts.items() if any(counts)}


def extra_cost(cfg: CfgNode, *sizes: int) -> tuple[Counts, Counts]:
    """The counts of a config's baseline and of its model; `sizes` are those of `count_by_stage`."""
    baseline, model = (count_by_stage(each, *sizes) for each in (baseline_of(cfg), cfg))
    return total(baseline.values()), total(model.values())


def total(counts: Iterable[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


class _Counter(TorchDispatchMode):
    """Counts operations for the part of the model that the innermost running module belongs to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.counts: dict[str, Counts] = {}
        self.ran: set[str] = set()
        self._running: list[str] = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave)

    def add(self, part: str, counts: Counts) -> None:
        self.counts[part] = total([self.counts.get(part, Counts(0, 0, 0)), counts])

    def _enter(self, name: str, *_: object) -> None:
        self.ran.add(name)
        self._running.append(_part(name))
        self.add(self._running[-1], Counts(0, 0, 0))  # so that a stage comes before its blocks

    def _leave(self, *_: object) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if flops := _FLOPS.get(func.overloadpacket):
            self.add(self._running[-1], Counts(0, flops(*args, **kwargs, out_val=out) // 2, out.numel()))
        return out


def _part(name: str) -> str:
    """The part that a module belongs to."""
    stage = re.match(r"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)(stem|res\d)\b", name)
    known = (part for beginning, part in _PARTS.items() if name.startswith(beginning))
    block = _BLOCK.search(name)
    return (stage[1] if stage else next(known, name)) + (block[0] if block else "")


def _padded(model: nn.Module, image: Tensor) -> Tensor:
    """A batch of one image as the model pads it."""
    if hasattr(model, "preprocess_image"):
        return model.preprocess_image([{"image": image}]).tensor
    return ImageList.from_tensors([image], model.backbone.size_divisibility).tensor  # SemanticSegmentor


def _run(model: nn.Module, image: Tensor, proposals: int, detections: int) -> None:
    """Every part once, on as many regions as asked for."""
    features = model.backbone(image)
    if rpn := getattr(model, "proposal_generator", None):
        _own(rpn, "rpn_head")([features[name] for name in rpn.in_features])
    if hasattr(model, "head"):  # RetinaNet
        names = _own(model, "head_in_features")
        model.head([features[name] for name in names])
    if hasattr(model, "sem_seg_head"):  # Panoptic FPN, SemanticSegmentor
        _own(model.sem_seg_head, "layers")(features)
    heads = getattr(model, "roi_heads", None)
    if hasattr(heads, "res5"):  # C4: it runs for the boxes of the proposals, and the masks of the detections
        boxes = heads.res5(_pooled(features, heads.in_features, heads.pooler, proposals))
        heads.box_predictor(boxes.mean(dim=[2, 3]))
        if heads.mask_on:
            masks = heads.res5(_pooled(features, heads.in_features, heads.pooler, detections))
            _own(heads.mask_head, "layers")(masks)
    elif heads is not None:
        stages = [(_own(heads, "box_head"), heads.box_predictor)]
        if isinstance(heads.box_head, nn.ModuleList):  # Cascade R-CNN
            stages = zip(heads.box_head, heads.box_predictor, strict=True)
        for head, predictor in stages:
            predictor(head(_pooled(features, heads.box_in_features, heads.box_pooler, proposals)))
        if heads.mask_on:
            regions = _pooled(features, heads.mask_in_features, heads.mask_pooler, detections)
            _own(heads.mask_head, "layers")(regions)
        if heads.keypoint_on:
            regions = _pooled(features, heads.keypoint_in_features, heads.keypoint_pooler, detections)
            _own(heads.keypoint_head, "layers")(regions)


def _own(module: nn.Module, name: str) -> object:
    """What Detectron2's own modules of this kind have under a name."""
    if not hasattr(module, name):
        found = f"{type(module).__name__} has no {name}"
        raise UserError(f"Only models of Detectron2's own parts can be counted: {found}.")
    return getattr(module, name)


def _pooled(features: dict[str, Tensor], names: list[str], pooler: nn.Module, regions: int) -> Tensor:
    source = features[names[0]]
    return source.new_empty(regions, source.shape[1], *pooler.output_size)
