"""Record the inputs of a detector's non-local blocks for an image, and where they lie in it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from detectron2.engine import DefaultPredictor
from detectron2.structures import Instances
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
    seen: dict[object, object] = {}  # the input of each block; "image" and "boxes" as the model has them
    with ExitStack() as hooks:

        def note(module: nn.Module, name: object, take: int = 0) -> None:
            def hook(_: nn.Module, args: tuple) -> None:
                value = args[take]
                if isinstance(name, NonLocalBlock):  # only the model is under autocast
                    value = value.to(name.g.weight.dtype)
                seen[name] = value[0].clone() if name == "boxes" else value  # boxes are scaled later

            hooks.callback(module.register_forward_pre_hook(hook).remove)

        note(model, "image")
        for _, block in non_local_blocks(model):
            note(block, block)
        for heads in _with_keypoint_head(model):
            note(heads.keypoint_pooler, "boxes", take=1)
        output = predictor(image)
    size = seen["image"][0]["image"].shape[1:]
    to_image = (width / size[1], height / size[0])
    fields = [*_in_backbone(model, seen, to_image)]
    if "boxes" in seen:
        fields += _in_head(model, seen, to_image, (height, width))
    return Observation(image, output["instances"].to("cpu") if "instances" in output else None, fields)


def _with_keypoint_head(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if hasattr(module, "keypoint_pooler"))


def _in_backbone(
    model: nn.Module, seen: dict[object, object], to_image: tuple[float, float]
) -> Iterator[Field]:
    names = {block: name for name, block in non_local_blocks(model)}
    for block, stride in strides_in_resnets(model):
        cell = (stride * to_image[0], stride * to_image[1])
        yield Field(names[block], block, seen[block], _grid(block, seen[block], (0, 0), cell))


def _in_head(
    model: nn.Module, seen: dict[object, object], to_image: tuple[float, float], size: tuple[int, int]
) -> Iterator[Field]:
    """The blocks of a keypoint head, for each region in the order of the detections."""
    in_image = seen["boxes"].clone()
    in_image.scale(*to_image)
    clipped = in_image.clone()
    clipped.clip(size)
    kept = clipped.nonempty().nonzero().flatten().tolist()  # as Detectron2 keeps detections
    in_heads = {block for heads in _with_keypoint_head(model) for _, block in non_local_blocks(heads)}
    for name, block in ((name, block) for name, block in non_local_blocks(model) if block in in_heads):
        for detection, region in enumerate(kept):
            x = seen[block][region : region + 1]
            left, top, right, bottom = in_image.tensor[region].tolist()
            cell = ((right - left) / x.shape[3], (bottom - top) / x.shape[2])
            yield Field(name, block, x, _grid(block, x, (left, top), cell), detection)


def _grid(block: NonLocalBlock, x: Tensor, corner: tuple[float, float], cell: tuple[float, float]) -> Grid:
    rows, columns = x.shape[2:]
    pooled = tuple(2 if block.subsample != "none" and side > 1 else 1 for side in (rows, columns))
    return Grid(*corner, *cell, rows, columns, pooled)
