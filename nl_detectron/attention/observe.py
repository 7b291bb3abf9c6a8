"""What went into the blocks of a detector for an image, and where in the image it lies."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

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

    def query_dependence(self) -> float:
        return query_dependence(self.block, self.x)

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
        predictor: Detectron2's or ours; used are its `model`, `aug` and `input_format`.
        image: (H, W, 3) of uint8, BGR.
    """
    model, (height, width) = predictor.model, image.shape[:2]
    ordered = image if predictor.input_format == "BGR" else image[:, :, ::-1]
    resized = predictor.aug.get_transform(ordered).apply_image(ordered)
    tensor = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)).astype("float32"))
    with _recorded(model) as (inputs, boxes):
        (output,) = model([{"image": tensor, "height": height, "width": width}])
    to_image = (width / resized.shape[1], height / resized.shape[0])
    fields = [
        *_in_backbone(model, inputs, to_image),
        *_in_heads(model, inputs, boxes, to_image, (height, width)),
    ]
    instances = output["instances"].to("cpu") if "instances" in output else None
    return Observation(image, instances, fields)


@contextmanager
def _recorded(model: nn.Module) -> Iterator[tuple[dict[NonLocalBlock, Tensor], list[Boxes]]]:
    """What goes into each block within it, and the boxes that go into a keypoint head."""
    inputs, boxes = {}, []
    with ExitStack() as hooks:
        for _, block in non_local_blocks(model):
            hook = block.register_forward_pre_hook(lambda block, args: inputs.__setitem__(block, args[0]))
            hooks.callback(hook.remove)
        for module in (module for module in model.modules() if hasattr(module, "keypoint_pooler")):
            # A copy, as Detectron2 scales them in place afterwards.
            hook = module.keypoint_pooler.register_forward_pre_hook(
                lambda _, args: boxes.append(args[1][0].clone())
            )
            hooks.callback(hook.remove)
        yield inputs, boxes


def _in_backbone(
    model: nn.Module, inputs: dict[NonLocalBlock, Tensor], to_image: tuple[float, float]
) -> Iterator[Field]:
    names = {block: name for name, block in non_local_blocks(model)}
    for block, stride in strides_in_resnets(model):
        x = inputs[block]
        yield Field(
            names[block], block, x, _grid(block, x, (0, 0), (stride * to_image[0], stride * to_image[1]))
        )


def _in_heads(
    model: nn.Module,
    inputs: dict[NonLocalBlock, Tensor],
    boxes: list[Boxes],
    to_image: tuple[float, float],
    size: tuple[int, int],
) -> Iterator[Field]:
    """The blocks of a keypoint head, for each region in the order of the detections."""
    if not boxes:
        return
    in_image = boxes[0].clone()
    in_image.scale(*to_image)
    clipped = in_image.clone()
    clipped.clip(size)
    kept = clipped.nonempty().nonzero().flatten().tolist()  # as Detectron2 keeps detections
    in_backbone = {block for block, _ in strides_in_resnets(model)}
    for name, block in non_local_blocks(model):
        if block in in_backbone or block not in inputs:
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
