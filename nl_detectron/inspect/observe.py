"""What went into the blocks of a detector for an image, and where in the image it lies."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import non_local_blocks, strides_in_resnets

from .grid import Grid
from .rows import attention_rows, query_dependence


@dataclass(frozen=True)
class Field:
    """A block, and one map that went through it: of the image, or of one detection in a keypoint head."""

    name: str
    block: NonLocalBlock
    x: Tensor  # (1, C, H, W)
    grid: Grid
    detection: int | None = None

    def rows(self, positions: list[int]) -> np.ndarray:
        """(K, H', W'), as `attention_rows`."""
        return attention_rows(self.block, self.x, torch.tensor(positions))[0].cpu().numpy()

    @property
    def is_signed(self) -> bool:
        """Whether the weights are no probabilities: dot product and concatenation."""
        return "gaussian" not in self.block.pairwise

    @cached_property
    def query_dependence(self) -> float:
        """As the function of that name."""
        return query_dependence(self.block, self.x)

    @cached_property
    @torch.no_grad()
    def change(self) -> float:
        """|W_z y| / |x|: how much of x the block adds to it. 0 for a new block, which is the identity."""
        return ((self.block(self.x) - self.x).norm() / self.x.norm().clamp(min=1e-12)).item()


@dataclass(frozen=True)
class Observation:
    """An image (H, W, 3), BGR, what was detected in it, in its pixels, and the fields of all blocks."""

    image: np.ndarray
    instances: Instances | None
    fields: list[Field]


@torch.no_grad()
def observe(predictor: DefaultPredictor, image: np.ndarray) -> Observation:
    """Run a detector on an image and keep what goes into its non-local blocks.

    Args:
        predictor: Detectron2's or ours: takes an image, and has its model as `model`.
        image: (H, W, 3) of uint8, BGR.
    """
    model, (height, width) = predictor.model, image.shape[:2]
    with _recorded(model) as seen:
        output = predictor(image)
    to_image = (width / seen.size[1], height / seen.size[0])
    fields = [*_in_backbone(model, seen.inputs, to_image)]
    if seen.boxes is not None:
        fields += _in_head(model, seen.inputs, seen.boxes, to_image, (height, width))
    instances = output["instances"].to("cpu") if "instances" in output else None
    return Observation(image, instances, fields)


@dataclass
class _Seen:
    """What goes into each block, the boxes that go into a keypoint head, and the size of what is resized."""

    inputs: dict[NonLocalBlock, Tensor] = field(default_factory=dict)
    boxes: Boxes | None = None
    size: torch.Size | None = None


@contextmanager
def _recorded(model: nn.Module) -> Iterator[_Seen]:
    """Notes what goes through a model within it."""
    seen = _Seen()

    def note_size(_: nn.Module, args: tuple) -> None:
        seen.size = args[0][0]["image"].shape[1:]

    def note_boxes(_: nn.Module, args: tuple) -> None:
        seen.boxes = args[1][0].clone()  # as Detectron2 scales them in place afterwards

    def note_input(block: nn.Module, args: tuple) -> None:
        seen.inputs[block] = args[0]

    with ExitStack() as hooks:
        hooks.callback(model.register_forward_pre_hook(note_size).remove)
        for _, block in non_local_blocks(model):
            hooks.callback(block.register_forward_pre_hook(note_input).remove)
        for heads in _with_keypoint_head(model):
            hooks.callback(heads.keypoint_pooler.register_forward_pre_hook(note_boxes).remove)
        yield seen


def _with_keypoint_head(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if hasattr(module, "keypoint_pooler"))


def _in_backbone(
    model: nn.Module, inputs: dict[NonLocalBlock, Tensor], to_image: tuple[float, float]
) -> Iterator[Field]:
    names = {block: name for name, block in non_local_blocks(model)}
    for block, stride in strides_in_resnets(model):
        x = inputs[block]
        yield Field(
            names[block], block, x, _grid(block, x, (0, 0), (stride * to_image[0], stride * to_image[1]))
        )


def _in_head(
    model: nn.Module,
    inputs: dict[NonLocalBlock, Tensor],
    boxes: Boxes,
    to_image: tuple[float, float],
    size: tuple[int, int],
) -> Iterator[Field]:
    """The blocks of a keypoint head, for each region in the order of the detections."""
    in_image = boxes.clone()
    in_image.scale(*to_image)
    clipped = in_image.clone()
    clipped.clip(size)
    kept = clipped.nonempty().nonzero().flatten().tolist()  # as Detectron2 keeps detections
    in_heads = {block for heads in _with_keypoint_head(model) for _, block in non_local_blocks(heads)}
    for name, block in non_local_blocks(model):
        if block not in in_heads:
            continue
        for detection, region in enumerate(kept):
            x = inputs[block][region : region + 1]
            left, top, right, bottom = in_image.tensor[region].tolist()
            cell = ((right - left) / x.shape[3], (bottom - top) / x.shape[2])
            yield Field(name, block, x, _grid(block, x, (left, top), cell), detection)


def _grid(block: NonLocalBlock, x: Tensor, corner: tuple[float, float], cell: tuple[float, float]) -> Grid:
    rows, columns = x.shape[2:]
    pooled = tuple(2 if block.subsample != "none" and side > 1 else 1 for side in (rows, columns))
    return Grid(*corner, *cell, rows, columns, pooled)
