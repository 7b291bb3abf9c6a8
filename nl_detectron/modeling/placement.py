"""Where blocks go: Section 4.1 ("right before the last residual block of a stage") and Section 6.

A block is put in place among the children of a stage or head, under a name of its own, so that every
other child keeps its name and with it its pretrained weights.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron.config import STAGES
from nl_detectron.errors import ArgumentError
from nl_detectron.layers import NonLocalBlock

logger = logging.getLogger(__name__)

_Module = TypeVar("_Module", bound=nn.Module)


def insert_non_local(
    resnet: nn.Module, placement: Mapping[str, Sequence[int]], **block_arguments: object
) -> nn.Module:
    """Put non-local blocks into a Detectron2 ResNet, in place; nothing else of it changes.

    A block in a stage that is frozen is frozen with it, and stays the identity.

    Args:
        resnet: any depth and residual block, new or trained; or a model with one such ResNet in it, with FPN
            or without (Mask R-CNN, RetinaNet, Cascade R-CNN, Panoptic FPN, C4).
        placement: for each stage, e.g. {"res4": [-1]}, the residual blocks k right before which a non-local
            block goes; from -n to n in a stage of n blocks, n being after the last. The child is called
            `non_local_<k>`, with k from 0 to n.
        block_arguments: of `NonLocalBlock`.

    Returns:
        The same `resnet`.

    Raises:
        ArgumentError: (a ValueError) named after the stage or block argument, for a bad value, a stage that
            is not built, no block at all, or a place that is taken. Nothing is changed then.
    """
    if not isinstance(placement, Mapping):
        raise ArgumentError("placement", "a dict", placement, 'Give it like {"res4": [-1]}.')
    found = _find("resnet", resnet, ResNet, "That of a model with FPN is model.backbone.bottom_up.")
    stages = dict(zip(found.stage_names, found.stages, strict=True))
    new = [
        (stages[name], index, _new_block(stages[name], index, block_arguments))
        for name, indices in placement.items()
        for index in _resolve(name, indices, stages)
    ]
    if not new:
        raise ArgumentError(
            "res4", "a list with a block, unless another stage has one", [], "Set it to [-1]."
        )
    for stage, index, block in new:
        insert_child(stage, f"non_local_{index}", block, [*_residual_blocks(stage), None][index])
    return resnet


def insert_non_local_keypoint(head: nn.Module, every: int = 2, **block_arguments: object) -> nn.Module:
    """Put a block after every `every` convolutions of a keypoint head, and their ReLU, in place.

    The paper's head has 8 convolutions, and a block after every 2 of them (Section 6). The child after
    convolution k (from 1) is called `non_local_<k>`.

    Args:
        head: a Detectron2 `KRCNNConvDeconvUpsampleHead`, or a model with one in it.
        every: from 1 to the number of convolutions.
        block_arguments: of `NonLocalBlock`.

    Returns:
        The same `head`.

    Raises:
        ArgumentError: (a ValueError) for a bad value, or if no block would be placed.
    """
    remedy = "That of a Keypoint R-CNN is model.roi_heads.keypoint_head."
    found = _find("head", head, KRCNNConvDeconvUpsampleHead, remedy)
    convolutions = [child for child in found if isinstance(child, nn.Conv2d)]
    check_every(every, len(convolutions))
    if any(isinstance(child, NonLocalBlock) for child in found):
        raise ArgumentError("head", "without blocks", type(head).__name__, "It has some already.")
    places = range(every, len(convolutions) + 1, every)
    blocks = {k: _two_dimensional(convolutions[k - 1].out_channels, block_arguments) for k in places}
    for k, block in blocks.items():
        following = convolutions[k] if k < len(convolutions) else found.score_lowres
        insert_child(found, f"non_local_{k}", block.to(following.weight).train(found.training), following)
    return head


def check_every(every: int, num_convs: int) -> None:
    """Refuse an `every` with which a head of `num_convs` convolutions gets no block."""
    if type(every) is not int or not 1 <= every <= num_convs:
        rule = f"an integer from 1 to the {num_convs} convolutions of the keypoint head"
        raise ArgumentError("every", rule, every, "The paper has 2, of 8.")


def non_local_blocks(model: nn.Module) -> Iterator[tuple[str, NonLocalBlock]]:
    """The non-local blocks of a model with their full names, in the order of its modules."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, NonLocalBlock))


def strides_in_resnets(model: nn.Module) -> Iterator[tuple[NonLocalBlock, int]]:
    """Each block of the ResNets of a model, with the stride of its map."""
    for resnet in (module for module in model.modules() if isinstance(module, ResNet)):
        stride = resnet.stem.stride
        for child in (child for stage in resnet.stages for child in stage):
            if isinstance(child, NonLocalBlock):
                yield child, stride
            else:
                stride *= child.stride


def summarize_non_local(model: nn.Module, image_size: tuple[int, int] | None = None) -> str:
    """List the non-local blocks with their sizes and options, a line each; "no non-local block" if none.

    Args:
        image_size: height and width in pixels. With it, multiply-adds are given too, in a head for a region.
    """
    costs = dict(_costs(model, *image_size)) if image_size else {}
    lines = []
    for name, block in non_local_blocks(model):
        parts = [f"  {name}: C={block.in_channels}, d={block.inner_channels}, {block.extra_repr()}"]
        parts.append(f"{sum(p.numel() for p in block.parameters()):,} parameters")
        if block in costs:
            parts.append(costs[block])
        if not any(p.requires_grad for p in block.parameters()):
            parts.append("frozen")
        lines.append(", ".join(parts))
    if not lines:
        return "no non-local block (a baseline)"
    blocks = "1 non-local block" if len(lines) == 1 else f"{len(lines)} non-local blocks"
    return "\n".join([f"{blocks}:", *lines])


def _costs(model: nn.Module, height: int, width: int) -> Iterator[tuple[NonLocalBlock, str]]:
    """The multiply-adds of each block whose map size is known."""
    for block, stride in strides_in_resnets(model):
        count = _multiply_adds(block, (-(-height // stride), -(-width // stride)))
        yield block, f"{count / 1e9:.2f} GMAC for {height} x {width} pixels"
    for heads in (module for module in model.modules() if hasattr(module, "keypoint_pooler")):
        for _, block in non_local_blocks(heads):
            count = _multiply_adds(block, heads.keypoint_pooler.output_size)
            yield block, f"{count / 1e9:.2f} GMAC a region"


def _multiply_adds(block: NonLocalBlock, size: tuple[int, int]) -> int:
    """Of the convolutions and products for one map, counted without computing them."""
    x = torch.empty(1, block.in_channels, *size, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        deepcopy(block).to("meta").eval()(x)
    return counter.get_total_flops() // 2


def _find(name: str, module: nn.Module, kind: type[_Module], remedy: str) -> _Module:
    """The one module of a kind that `module` is, or has in it."""
    found = [m for m in module.modules() if isinstance(m, kind)] if isinstance(module, nn.Module) else []
    if len(found) != 1:
        value = type(module).__name__ + (f" with {len(found)} of them" if found else "")
        raise ArgumentError(name, f"a Detectron2 {kind.__name__}, or a model with one", value, remedy)
    return found[0]


def _resolve(name: str, indices: Sequence[int], stages: Mapping[str, nn.Sequential]) -> list[int]:
    """The places asked for in stage `name`, each from 0 to n."""
    if name not in STAGES:
        raise ArgumentError("placement", f"a dict from {', '.join(STAGES)}", name, "Correct the name.")
    is_list = isinstance(indices, Sequence) and not isinstance(indices, str)
    if is_list and not indices:
        return []
    if name not in stages:
        built = ", ".join(stages)
        raise ArgumentError(name, f"empty, as only {built} are built", indices, f"Use {built}.")
    n = len(_residual_blocks(stages[name]))
    if not is_list or not all(type(k) is int and -n <= k <= n for k in indices):
        rule = f"a list of integers from {-n} to {n}, as the stage has {n} residual blocks"
        raise ArgumentError(name, rule, indices, "[-1] is right before the last one.")
    resolved = [k + n if k < 0 else k for k in indices]
    taken = {child for child, _ in stages[name].named_children()}
    if len({*resolved}) < len(resolved) or taken & {f"non_local_{k}" for k in resolved}:
        rule = "a list of places without a non-local block, each once"
        raise ArgumentError(name, rule, indices, "Leave out what is there already.")
    return resolved


def _residual_blocks(stage: nn.Sequential) -> list[nn.Module]:
    return [child for child in stage if not isinstance(child, NonLocalBlock)]


def _new_block(stage: nn.Sequential, index: int, arguments: Mapping[str, object]) -> NonLocalBlock:
    """A block for the place before residual block `index`: channels, dtype, device and state of it."""
    blocks, parameters = _residual_blocks(stage), list(stage.parameters())
    channels = blocks[-1].out_channels if index == len(blocks) else blocks[index].in_channels
    block = _two_dimensional(channels, arguments).to(parameters[0]).train(stage.training)
    if not any(p.requires_grad for p in parameters):
        block.freeze()
        logger.warning(
            "A non-local block goes into a frozen stage: it is frozen too and stays the identity, "
            "unless weights for it are loaded. Lower MODEL.BACKBONE.FREEZE_AT to train it."
        )
    return block


def _two_dimensional(channels: int, arguments: Mapping[str, object]) -> NonLocalBlock:
    block = NonLocalBlock(channels, **arguments)
    if block.dim != 2:
        raise ArgumentError("dim", "2, for maps of height and width", block.dim, "Leave it out.")
    return block


def insert_child(parent: nn.Sequential, name: str, block: nn.Module, before: nn.Module | None) -> None:
    """Put `block` right before a child of `parent` (None: at the end), in place.

    `ResNet.stages` aliases the stages, so a new Sequential would never run, and `del parent[i]` would rename
    the children. So they are taken out and put in again, in order.
    """
    children = list(parent.named_children())
    following = [child for _, child in children].index(before) if before is not None else len(children)
    for child_name, _ in children[following:]:
        delattr(parent, child_name)
    parent.add_module(name, block)
    for child_name, child in children[following:]:
        parent.add_module(child_name, child)
