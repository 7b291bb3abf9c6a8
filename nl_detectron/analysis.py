"""Parameters, multiply-adds and activations of a detector by stage, and what its non-local blocks add.

One image goes through the model in inference, on PyTorch's "meta" device, whose tensors have shapes and no
values: it takes no memory, and what random weights would detect does not matter. Counted are

- parameters, the frozen ones too (the constants of FrozenBN are none);
- multiply-adds of convolutions, linear layers and matrix products, as Detectron2's FlopCountAnalysis has
  them. Norms, pooling, resizing, RoIAlign, non-maximum suppression and sorting are not among them;
- activations: the values that these operations put out, as fvcore's ActivationCountAnalysis has them. The
  N x M logits of a softmax are among them, though `layers` never holds large ones at once.
"""

import re
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from .config import baseline_of
from .errors import ArgumentError, UserError, reported_as_user_errors
from .layers import NonLocalBlock
from .modeling import non_local_blocks

# What PyTorch's counter of FLOPs, two for a multiply-add, lacks. addcmul ends concatenation's prefix sums:
# y_i = a_i G(i) + H(i) in the letters of `layers.active_sums`.
_FLOPS = flop_registry | {
    torch.ops.aten.addcmul_: lambda total, *_, **__: 2 * total.numel(),
    torch.ops.torchvision.deform_conv2d: lambda x, weight, *_, out_val, **__: (
        2 * out_val.numel() * weight[0].numel()
    ),
}

# What a module is counted under, by how its name begins; its stage in a ResNet goes by its own name.
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


_NOTHING = Counts(0, 0, 0)


def count_by_stage(
    cfg: CfgNode,
    height: int = 800,
    width: int = 1333,
    proposals: int = 1000,
    detections: int = 100,
    as_written: bool = False,
) -> dict[str, Counts]:
    """The counts of each part of a config's model, in the order in which they run, and of each block.

    Args:
        height, width: of the image in pixels, which the model pads as it needs.
        proposals: the regions that the box head sees.
        detections: those that the mask and keypoint heads see.
        as_written: with the N x M matrix of Eq. 1 for every pairwise function, and the concatenated pairs of
            Eq. 5, in place of what `layers` computes instead.

    Returns:
        For "stem", "res2" to "res5", "FPN", "RPN", "box head" and the like what they have without blocks, and
        for "res4.non_local_5" what that block has: the model is their sum.

    Raises:
        UserError: for a model that cannot be built, or has a part that is not known here.
    """
    model = _build(cfg)
    if not hasattr(model, "backbone"):
        raise ArgumentError(
            "MODEL.META_ARCHITECTURE",
            "a model with a backbone",
            cfg.MODEL.META_ARCHITECTURE,
            "GeneralizedRCNN, PanopticFPN, RetinaNet and SemanticSegmentor have one.",
        )
    counter = _Counter(model)
    for _, block in non_local_blocks(model):
        block.forward = partial(_block_forward, block, as_written)
    with torch.no_grad(), reported_as_user_errors("The operations of this model cannot be counted"):
        image = _padded(model, torch.empty(3, height, width, device="meta"))
        with counter:
            _run(model, image, proposals, detections)
    _count_parameters(model, counter)
    return {part: counts for part, counts in counter.counts.items() if any(counts)}


def extra_cost(
    cfg: CfgNode,
    height: int = 800,
    width: int = 1333,
    proposals: int = 1000,
    detections: int = 100,
) -> tuple[Counts, Counts]:
    """The counts of a config's baseline and of its model; arguments are those of `count_by_stage`."""
    sizes = (height, width, proposals, detections)
    baseline, model = (count_by_stage(c, *sizes) for c in (baseline_of(cfg), cfg))
    return total(baseline.values()), total(model.values())


def total(counts: Iterable[Counts]) -> Counts:
    """Their sum."""
    return Counts(*map(sum, zip(*counts, strict=True)))


def _build(cfg: CfgNode) -> nn.Module:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"), reported_as_user_errors("Detectron2 cannot build this model"):
        return build_model(cfg).eval()


class _Counter(TorchDispatchMode):
    """Counts operations for the part of the model whose module runs them, the innermost one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.counts: dict[str, Counts] = {}
        self.ran: set[str] = set()
        self._running: list[str] = []
        for name, module in model.named_modules():
            module.register_forward_pre_hook(partial(self._enter, name))
            module.register_forward_hook(self._leave)

    def add(self, part: str, counts: Counts) -> None:
        self.counts[part] = total([self.counts.get(part, _NOTHING), counts])

    def _enter(self, name: str, *_: object) -> None:
        self.ran.add(name)
        self._running.append(_part(name))
        self.add(self._running[-1], _NOTHING)  # so that a stage comes before its blocks

    def _leave(self, *_: object) -> None:
        self._running.pop()

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        flops = _FLOPS.get(func.overloadpacket)
        if flops is not None:
            self.add(self._running[-1], Counts(0, flops(*args, **kwargs, out_val=out) // 2, out.numel()))
        return out


def _part(name: str) -> str:
    """What a module is counted under."""
    stage = re.match(r"(?:backbone\.(?:bottom_up\.)?|roi_heads\.)(stem|res\d)\b", name)
    known = (part for beginning, part in _PARTS.items() if name.startswith(beginning))
    block = _BLOCK.search(name)
    return (stage[1] if stage else next(known, name)) + (block[0] if block else "")


def _block_forward(block: NonLocalBlock, as_written: bool, x: Tensor) -> Tensor:
    """Eq. 6 without what its own `forward` does for half precision: the meta device has no autocast."""
    theta, phi, g = (embedded.flatten(2) for embedded in block.embed(x))
    if as_written or "gaussian" in block.pairwise:  # the products of a softmax are the same in every way
        y = _operate_as_written(block, theta, phi, g)
    else:
        y = block.operate(theta, phi, g)
    return x + block.out(y.unflatten(2, x.shape[2:]))


def _operate_as_written(block: NonLocalBlock, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
    """The products of Eq. 1 over all pairs; letters and shapes are those of `layers.pairwise`."""
    if block.pairwise == "concatenation":
        theta, phi = theta.unsqueeze(3), phi.unsqueeze(2)
        pairs = torch.cat(torch.broadcast_tensors(theta, phi), dim=1)  # (B, 2d, N, M)
        f = block.w_f(pairs.movedim(1, 3)).squeeze(3)
    else:
        f = torch.bmm(theta.transpose(1, 2), phi)  # (B, N, M)
    return torch.bmm(g, f.transpose(1, 2))


def _padded(model: nn.Module, image: Tensor) -> Tensor:
    """A batch of one image as the model pads it."""
    if hasattr(model, "preprocess_image"):
        return model.preprocess_image([{"image": image}]).tensor
    return ImageList.from_tensors([image], model.backbone.size_divisibility).tensor  # SemanticSegmentor


def _run(model: nn.Module, image: Tensor, proposals: int, detections: int) -> None:
    """Every part once, on as many regions as asked for."""
    features = model.backbone(image)
    rpn, heads = getattr(model, "proposal_generator", None), getattr(model, "roi_heads", None)
    if rpn is not None:
        rpn.rpn_head([features[name] for name in rpn.in_features])
    if hasattr(model, "head"):  # RetinaNet
        model.head([features[name] for name in model.head_in_features])
    if hasattr(model, "sem_seg_head"):  # Panoptic FPN, SemanticSegmentor
        model.sem_seg_head.layers(features)
    if hasattr(heads, "res5"):  # C4
        _run_res5_heads(heads, features[heads.in_features[0]], proposals, detections)
    elif heads is not None:
        _run_heads(heads, features, proposals, detections)


def _run_heads(heads: nn.Module, features: dict[str, Tensor], proposals: int, detections: int) -> None:
    def pooled(kind: str, regions: int) -> Tensor:
        source = features[getattr(heads, f"{kind}_in_features")[0]]
        return _pooled(source, getattr(heads, f"{kind}_pooler"), regions)

    stages = [(heads.box_head, heads.box_predictor)]
    if isinstance(heads.box_head, nn.ModuleList):  # Cascade R-CNN
        stages = zip(heads.box_head, heads.box_predictor, strict=True)
    for head, predictor in stages:
        predictor(head(pooled("box", proposals)))
    if heads.mask_on:
        heads.mask_head.layers(pooled("mask", detections))
    if heads.keypoint_on:
        heads.keypoint_head.layers(pooled("keypoint", detections))


def _run_res5_heads(heads: nn.Module, source: Tensor, proposals: int, detections: int) -> None:
    """res5 runs twice: for the boxes of the proposals, and for the masks of the detections."""
    boxes = heads.res5(_pooled(source, heads.pooler, proposals))
    heads.box_predictor(boxes.mean(dim=[2, 3]))
    if heads.mask_on:
        heads.mask_head.layers(heads.res5(_pooled(source, heads.pooler, detections)))


def _pooled(source: Tensor, pooler: ROIPooler, regions: int) -> Tensor:
    return source.new_empty(regions, source.shape[1], *pooler.output_size)


def _count_parameters(model: nn.Module, counter: _Counter) -> None:
    """Add them to the counts.

    Raises:
        UserError: for those of a module that has not run: a block's may be read without that.
    """
    for name, parameter in model.named_parameters():
        module = name.rpartition(".")[0]
        if module not in counter.ran and not _BLOCK.search(module):
            raise UserError(
                f"The model must be of Detectron2's own parts to be counted; got {module}, which is none."
            )
        counter.add(_part(module), Counts(parameter.numel(), 0, 0))
