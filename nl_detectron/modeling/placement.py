"""Where blocks go: Section 4.1 ("right before the last residual block of a stage") and Section 6.

A block is put in place among the children of a stage or head, under a name of its own, so that every
other child keeps its name and with it its pretrained weights.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import torch
from detectron2.layers import CNNBlockBase
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron.errors import ArgumentError
from nl_detectron.layers import NonLocalBlock

from .stages import blocks_of, find_stage, maps_at, part_to_try, runs_in_order

logger = logging.getLogger(__name__)


def insert_non_local(
    model: nn.Module,
    placement: Mapping[str, Sequence[int]],
    in_channels: int | None = None,
    **block_arguments: object,
) -> nn.Module:
    """Put non-local blocks into the stages of any network, in place; nothing else of it changes.

    A stage is an nn.Sequential, an nn.ModuleList, or another module that runs its children one after another.
    The smallest part of the model around it that runs on a map alone is tried with zeros, in evaluation mode
    (forward hooks see that); if there is none, the stage itself is, with a warning. A block in a stage
    that is frozen is frozen with it, and stays the identity.

    Args:
        model: a Detectron2 ResNet, or any model, new or trained.
        placement: for each stage, e.g. {"res4": [-1]} or {"backbone.body.layer3": [2, 4]}, the blocks k right
            before which a non-local block goes; from -n to n in a stage of n blocks, n being after the last.
            A path may leave out its beginning. The child is called `non_local_<k>`, with k from 0 to n.
        in_channels: C, where the convolutions beside the places do not tell it.
        block_arguments: of `NonLocalBlock`. `dim` is that of the convolutions beside the place.

    Returns:
        The same `model`.

    Raises:
        ArgumentError: (a ValueError) named after the stage or block argument, for a bad value, a stage that
            is not there or does not run its children in order, no block at all, or a place that is taken.
            Nothing is changed then.
    """
    if not isinstance(placement, Mapping):
        raise ArgumentError("placement", "a dict", placement, 'Give it like {"res4": [-1]}.')
    if not isinstance(model, nn.Module):
        raise ArgumentError("model", "a PyTorch module", type(model).__name__, "Give a network.")
    new, parts = [], {}
    for name, indices in placement.items():
        if isinstance(indices, Sequence) and not indices and not isinstance(indices, str):
            continue
        path, stage = find_stage(model, name, indices)
        if stage in parts:
            raise ArgumentError(name, "another stage than the others", indices, f"{path} is there already.")
        given = {"in_channels": in_channels, **block_arguments}
        blocks = [(k, _new_block(name, stage, k, given)) for k in _resolve(name, indices, stage)]
        parts[stage] = part_to_try(model, path, stage, blocks[0][1])
        if not parts[stage]:
            raise _not_run(name, stage, indices)
        if parts[stage][0] is stage:
            what = "No part of the model around %s runs on a map alone: not tried whether it runs a block."
            logger.warning(what, path)
        new += [(name, stage, k, block) for k, block in blocks]
    if not new:
        name = (
            "res4" if "res4" in placement else next(iter(placement), "placement")
        )  # the default, or the first
        raise ArgumentError(name, "a list with a block, unless another stage has one", [], "Set it to [-1].")
    for _, stage, index, block in new:
        insert_child(stage, f"non_local_{index}", block, [*blocks_of(stage), None][index])
    for name, refused, _, _ in new:
        if not runs_in_order(*parts[refused], refused):
            for _, stage, index, _ in new:
                delattr(stage, f"non_local_{index}")
            raise _not_run(name, refused, placement[name])
    return model


def _not_run(name: str, stage: nn.Module, indices: object) -> ArgumentError:
    rule = "a stage that runs all its children in order, on maps of the block's channels"
    what = f"In this {type(stage).__name__}, a block would not run."
    return ArgumentError(name, rule, indices, f"{what} If the channels are others, give in_channels.")


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
    found = _keypoint_head_in(head)
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
            elif isinstance(child, CNNBlockBase):  # what else has been put there keeps the size
                stride *= child.stride


def summarize_non_local(model: nn.Module, image_size: tuple[int, int] | None = None) -> str:
    """List the non-local blocks with their sizes and options, a line each; of a baseline, that it has none.

    Args:
        image_size: height and width in pixels. With it, multiply-adds are given too, in a head for a region.
            A side of 0 is unknown: Detectron2 then resizes no images.
    """
    costs = dict(_costs(model, *image_size)) if image_size and all(image_size) else {}
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


def _keypoint_head_in(model: nn.Module) -> KRCNNConvDeconvUpsampleHead:
    """The one that `model` is, or has in it."""
    kind, modules = KRCNNConvDeconvUpsampleHead, model.modules() if isinstance(model, nn.Module) else ()
    found = [module for module in modules if isinstance(module, kind)]
    if len(found) != 1:
        value = type(model).__name__ + (f" with {len(found)} of them" if found else "")
        remedy = "That of a Keypoint R-CNN is model.roi_heads.keypoint_head."
        raise ArgumentError("head", f"a Detectron2 {kind.__name__}, or a model with one", value, remedy)
    return found[0]


def _resolve(name: str, indices: Sequence[int], stage: nn.Module) -> list[int]:
    """The places asked for in a stage, each from 0 to n."""
    n = len(blocks_of(stage))
    is_list = isinstance(indices, Sequence) and not isinstance(indices, str)
    if not is_list or not all(type(k) is int and -n <= k <= n for k in indices):
        rule = f"a list of integers from {-n} to {n}, as the stage has {n} blocks"
        raise ArgumentError(name, rule, indices, "[-1] is right before the last one.")
    resolved = [k + n if k < 0 else k for k in indices]
    taken = {child for child, _ in stage.named_children()}
    if len({*resolved}) < len(resolved) or taken & {f"non_local_{k}" for k in resolved}:
        rule = "a list of places without a non-local block, each once"
        raise ArgumentError(name, rule, indices, "Leave out what is there already.")
    return resolved


def _new_block(name: str, stage: nn.Module, index: int, given: Mapping[str, object]) -> NonLocalBlock:
    """A block for the place before block `index`: channels, dimension, dtype, device and state as there."""
    found = maps_at(stage, index)
    channels, dims = {channels for channels, _ in found}, {dim for _, dim in found}
    given = {"dim": min(dims, default=2), **given}
    if given["in_channels"] is None:
        if len(channels) != 1:
            said = f"say {' and '.join(map(str, sorted(channels)))}" if channels else "are missing"
            rule = f"given for {name}, as the convolutions beside place {index} {said}"
            raise ArgumentError("in_channels", rule, None, "It is C, the channels of the map there.")
        given["in_channels"] = min(channels)
    if dims and given["dim"] not in dims:
        rule = f"{min(dims)}, as for the convolutions of {name}"
        raise ArgumentError("dim", rule, given["dim"], "Leave it out.")
    parameters = list(stage.parameters())
    block = NonLocalBlock(**given).train(stage.training)
    block = block.to(parameters[0]) if parameters else block
    if parameters and not any(p.requires_grad for p in parameters):
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


def insert_child(parent: nn.Module, name: str, block: nn.Module, before: nn.Module | None) -> None:
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
