"""What a position of a clip attends to in space and time, drawn as Figures 1 and 3."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor, nn

from nl_detectron import NonLocalBlock
from nl_detectron.inspect import attention_rows

from .classifier import VideoClassifier
from .nets import AlongAxes

STRONGEST = 20  # "For each x_i, we only visualize the 20 highest weighted x_j" (Figure 3)


@dataclass(frozen=True)
class Attention:
    """
    Attributes:
        name: of the block.
        frame: of the clip, asked for.
        position: the frame, row and column asked for, in the block's map.
        size: of that map (T, H, W).
        weights: (T, H', W'), f(x_i, x_j) / C(x) of Eq. 1 for all j.
    """

    name: str
    frame: int
    position: tuple[int, int, int]
    size: tuple[int, int, int]
    weights: np.ndarray


@torch.no_grad()
def attend(model: VideoClassifier, clip: Tensor, frame: int, y: float, x: float) -> list[Attention]:
    """What each block attends to from the point (x, y) of a frame of a clip (3, T, H, W) uint8, in pixels."""
    seen: dict[str, tuple[nn.Module, Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: (module, inputs[0])})
        )
        for name, module in blocks_of(model)
    ]
    try:
        model.eval().scores(clip[None])
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name, (block, features) in seen.items():
        size = tuple(features.shape[2:])
        asked = zip((frame, y, x), size, clip.shape[1:], strict=True)
        position = tuple(min(int(value * n / whole), n - 1) for value, n, whole in asked)
        weights = rows_at(block, features, *position).cpu().numpy()
        found.append(Attention(name, frame, position, size, weights))
    return found


def blocks_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The blocks over space, time or both, by name."""
    inner = {id(module.block) for module in model.modules() if isinstance(module, AlongAxes)}
    kinds = (NonLocalBlock, AlongAxes)
    return [
        (name, each)
        for name, each in model.named_modules()
        if isinstance(each, kinds) and id(each) not in inner
    ]


def rows_at(block: nn.Module, features: Tensor, frame: int, row: int, column: int) -> Tensor:
    """(T, H', W') of a position in features (1, C, T, H, W), with 0 where the block does not look."""
    _, _, length, height, width = features.shape
    if isinstance(block, NonLocalBlock):
        position = torch.tensor([(frame * height + row) * width + column])
        return attention_rows(block, features, position)[0, 0]
    if block.axes == "space":
        (seen,) = attention_rows(block.block, features[:, :, frame], torch.tensor([row * width + column]))[0]
        weights = seen.new_zeros(length, *seen.shape)
        weights[frame] = seen
        return weights
    weights = features.new_zeros(length, height, width)
    weights[:, row, column] = attention_rows(block.block, features[..., row, column], torch.tensor([frame]))[
        0, 0
    ]
    return weights


def draw_attention(clip: Tensor, attention: Attention) -> Figure:
    """Frames of a clip (3, T, H, W) uint8, with arrows to the positions that are attended to most.

    These have more than twice the share that all would have if they were alike. The frames are the one asked
    for and, for the other frames of the map, their first ones.
    """
    _, frames, height, width = clip.shape
    weights = np.abs(attention.weights)
    length = len(weights)
    figure = Figure(figsize=(3 * length, 3 * height / width + 0.6), layout="constrained")
    panels = figure.subplots(1, length, squeeze=False)[0]
    heat = {"alpha": 0.35, "cmap": "inferno", "vmin": 0, "vmax": weights.max() or 1}
    for k, axes in enumerate(panels):
        number = attention.frame if k == attention.position[0] else k * frames // length
        for image, style in ((clip[:, number].permute(1, 2, 0).numpy(), {}), (weights[k], heat)):
            axes.imshow(image, extent=(0, width, height, 0), **style)
        axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0), title=f"frame {number}")
    figure.suptitle(f"{attention.name}: the strongest positions, at most {STRONGEST}")
    start = _center(attention.position[1:], attention.size[1:], (height, width))
    asked = panels[attention.position[0]]
    asked.plot(*start, "o", color="red")
    strongest = np.argsort(-weights, axis=None, kind="stable")[:STRONGEST]
    strongest = strongest[weights.flat[strongest] > 2 * weights.mean()]
    for k, *place in zip(*np.unravel_index(strongest, weights.shape), strict=True):
        end = _center(place, weights.shape[1:], (height, width))
        style = {"arrowstyle": "-|>", "color": "deepskyblue", "lw": 1.2}
        figure.add_artist(ConnectionPatch(start, end, "data", "data", axesA=asked, axesB=panels[k], **style))
    return figure


def _center(place: Sequence[int], size: Sequence[int], pixels: tuple[int, int]) -> tuple[float, float]:
    """x and y in pixels of a row and column of a map."""
    y, x = ((index + 0.5) * whole / n for index, n, whole in zip(place, size, pixels, strict=True))
    return x, y
