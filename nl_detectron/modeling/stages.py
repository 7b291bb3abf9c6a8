"""Stages of any network: which module one is, the channels of its maps, and whether it runs what is in it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nl_detectron.errors import ArgumentError
from nl_detectron.layers import NonLocalBlock

_SIDES, _FRAMES = (32, 224), 4  # of what a network is tried with
_SHOWN = 12


def find_stage(model: nn.Module, path: str, indices: object) -> tuple[str, nn.Module]:
    """The whole path of the one stage whose path ends with `path`, and the stage.

    Args:
        indices: what is asked for there.

    Raises:
        ArgumentError: (a ValueError) named after the path, if there is no such stage, or more than one.
    """
    stages = {name: each for name, each in model.named_modules() if name and [*each.children()]}
    found = [name for name in stages if f".{name}".endswith(f".{path}")]
    if len(found) == 1:
        return found[0], stages[found[0]]
    if found:
        remedy = f"There are {', '.join(found[:_SHOWN])}: give more of the path."
        raise ArgumentError(path, "the path of one stage", indices, remedy)
    lists = [name for name, each in stages.items() if _is_list_of_blocks(each)]
    rule = f"empty, as {type(model).__name__} has no such stage"
    raise ArgumentError(path, rule, indices, f"Its stages: {', '.join(lists[:_SHOWN]) or 'none'}.")


def _is_list_of_blocks(module: nn.Module) -> bool:
    kinds = {type(child) for child in blocks_of(module)}
    is_list = isinstance(module, nn.Sequential | nn.ModuleList)
    return is_list and len(kinds) == 1 and not issubclass(min(kinds), _ConvNd)


def blocks_of(stage: nn.Module) -> list[nn.Module]:
    """The children of a stage but for non-local blocks."""
    return [child for child in stage.children() if not isinstance(child, NonLocalBlock)]


def maps_at(stage: nn.Module, index: int) -> set[tuple[int, int]]:
    """The channels and dimensions of the map before block `index`, as the last convolution before it and the
    first one after it have them: more than one pair if they disagree.
    """
    blocks = blocks_of(stage)
    before = [each for block in blocks[:index] for each in _convolutions(block)][-1:]
    after = [each for block in blocks[index:] for each in _convolutions(block)][:1]
    maps = [(each.out_channels, each) for each in before] + [(each.in_channels, each) for each in after]
    return {(channels, len(each.kernel_size)) for channels, each in maps}


def _convolutions(module: nn.Module) -> list[_ConvNd]:
    return [each for each in module.modules() if isinstance(each, _ConvNd)]


def part_to_try(
    model: nn.Module, path: str, stage: nn.Module, block: NonLocalBlock
) -> tuple[nn.Module, Tensor] | None:
    """The smallest part of a model around a stage that runs on a map alone, else the stage; and the map.

    Args:
        block: a new one for the stage, which tells channels and dimension where no convolution does.

    Returns:
        None if there is none, or it does not run all children of the stage in order.
    """
    names = path.split(".")
    parts = [model.get_submodule(".".join(names[:n])) for n in reversed(range(len(names)))]
    if isinstance(stage, nn.Sequential):
        parts.append(stage)
    for part in parts:
        for side in _SIDES:
            x = _map_for(part, block, side)
            if (in_order := runs_in_order(part, x, stage)) is not None:
                return (part, x) if in_order else None
    return None


def _map_for(part: nn.Module, block: NonLocalBlock, side: int) -> Tensor:
    """A small map of zeros for the first convolution of a part, or else for a block."""
    first = next(iter(_convolutions(part)), None)
    channels, dim = (first.in_channels, len(first.kernel_size)) if first else (block.in_channels, block.dim)
    weight = first.weight if first else block.out.weight
    return weight.new_zeros(1, channels, *[_FRAMES] * (dim == 3), *[side] * min(dim, 2))


@torch.no_grad()
def runs_in_order(part: nn.Module, x: Tensor, stage: nn.Module) -> bool | None:
    """Whether a part of a model runs each child of a stage once, one after another; None if it fails on x."""
    calls: list[nn.Module] = []
    hooks = [child.register_forward_hook(lambda child, *_: calls.append(child)) for child in stage.children()]
    try:
        with _evaluating(part):
            part(x)
    except Exception:  # it takes something else than a map, or a map of another size
        return None
    finally:
        for hook in hooks:
            hook.remove()
    return calls == [*stage.children()]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Leaves modes and buffers as they were. `train()` is not called, as a model may have one of its own."""
    modes = {each: each.training for each in module.modules()}
    buffers = [(each, each.clone()) for each in module.buffers()]
    try:
        for each in modes:
            each.training = False
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
        for buffer, value in buffers:
            buffer.copy_(value)
