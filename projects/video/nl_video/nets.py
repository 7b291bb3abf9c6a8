"""C2D, I3D and their non-local nets: Table 1, Sections 3.3 and 4.

A torchvision ResNet gets a third dimension, so that its names stay, and its ImageNet weights fit: `layer1` to
`layer4` are the paper's res2 to res5. Its stride is in the 3x3 convolution, as in the authors' code.
"""

from collections.abc import Mapping, Sequence

import torchvision
from torch import Tensor, nn

from nl_detectron import NonLocalBlock, insert_non_local
from nl_detectron.errors import ArgumentError
from nl_detectron.modeling import non_local_blocks

DEPTHS = (50, 101)
# By blocks and depth (Section 5.1): 1 in res4; 5 at every other residual block of res3 and res4; 10 at every
# one. In R101, 5 are where the authors' code has them, and 10 are spaced like them.
PLACES = {
    1: {50: {"layer3": [-1]}, 101: {"layer3": [-1]}},
    5: {
        50: {"layer2": [2, 4], "layer3": [2, 4, 6]},
        101: {"layer2": [2, 4], "layer3": [7, 14, 21]},
    },
    10: {
        50: {"layer2": [1, 2, 3, 4], "layer3": [1, 2, 3, 4, 5, 6]},
        101: {"layer2": [1, 2, 3, 4], "layer3": [3, 7, 10, 14, 17, 21]},
    },
}
# Where a kernel is inflated: in one of 2 residual blocks (Section 4), and in all three of res2, as in the
# authors' code. With these, the costs are those of Table 2e.
INFLATED = {"layer1": [0, 1, 2], "layer2": [0, 2], "layer3": range(0, 23, 2), "layer4": [1]}


def c2d(depth: int = 50, num_classes: int = 400, dropout: float = 0.5) -> nn.Module:
    """C2D (Table 1): only its pools, which are not trained, see more than one frame.

    Args:
        depth: 50 or 101.
        dropout: before the classifier (Section 4.1).

    Returns:
        A torchvision ResNet of clips (B, 3, T, H, W). For 32 x 224 x 224, the map of `layer4` is 4 x 7 x 7.
    """
    if depth not in DEPTHS:
        raise ArgumentError("depth", "50 or 101", depth, "Table 1 and Section 4 have these.")
    return as_c2d(torchvision.models.get_model(f"resnet{depth}", num_classes=num_classes), dropout)


def as_c2d(net: nn.Module, dropout: float) -> nn.Module:
    """Turn a torchvision ResNet of images into a C2D, in place."""
    add_time(net)
    net.conv1.stride = (2, 2, 2)
    net.maxpool = nn.MaxPool3d(3, stride=2, padding=1)  # pool1
    net.layer1.add_module("pool2", nn.MaxPool3d((3, 1, 1), stride=(2, 1, 1), padding=(1, 0, 0)))
    net.avgpool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Dropout(dropout))
    return net


def i3d(depth: int = 50, kernel: str = "3x1x1", **c2d_arguments: object) -> nn.Module:
    """I3D: C2D with kernels over several frames (Section 4, "Inflated 3D ConvNet").

    Args:
        kernel: "3x3x3", from the 3x3 convolution of a block, or "3x1x1", from its first 1x1 convolution.
        c2d_arguments: of `c2d`.
    """
    if kernel not in ("3x3x3", "3x1x1"):
        raise ArgumentError("kernel", "'3x3x3' or '3x1x1'", kernel, "Table 2e has these.")
    net = c2d(depth, **c2d_arguments)
    _inflate(net.conv1, 5)
    for stage, places in INFLATED.items():
        blocks = [child for name, child in getattr(net, stage).named_children() if name.isdecimal()]
        for block in (blocks[k] for k in places if k < len(blocks)):
            _inflate(block.conv2 if kernel == "3x3x3" else block.conv1, 3)
    return net


def add_non_local(
    net: nn.Module, placement: Mapping[str, Sequence[int]], axes: str = "spacetime", **block_arguments: object
) -> nn.Module:
    """Put blocks into a network of clips, in place, over space, time or both (Table 2d).

    Args:
        placement: as in `insert_non_local`; `PLACES` has those of the paper.
        axes: "spacetime", "space" (of the same frame) or "time" (at the same place).
        block_arguments: of `NonLocalBlock`.
    """
    if axes not in ("spacetime", "space", "time"):
        raise ArgumentError("axes", "'spacetime', 'space' or 'time'", axes, "Table 2d has these.")
    before = {block for _, block in non_local_blocks(net)}
    insert_non_local(net, placement, **block_arguments)
    for path, block in [*non_local_blocks(net)] if axes != "spacetime" else ():
        if block not in before:
            stage, _, name = path.rpartition(".")
            new = AlongAxes(block.in_channels, axes, **block_arguments)
            new.to(block.g.weight).train(block.training)
            new.requires_grad_(any(p.requires_grad for p in block.parameters()))
            setattr(net.get_submodule(stage), name, new)
    return net


class AlongAxes(nn.Module):
    """A non-local block within each frame ("space"), or over the frames at each place ("time")."""

    def __init__(self, in_channels: int, axes: str, **block_arguments: object) -> None:
        super().__init__()
        self.axes = axes
        self.block = NonLocalBlock(in_channels, dim=2 if axes == "space" else 1, **block_arguments)

    def forward(self, x: Tensor) -> Tensor:
        """z for x (B, C, T, H, W)."""
        if self.axes == "space":
            frames = x.transpose(1, 2)  # (B, T, C, H, W)
            return self.block(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).transpose(1, 2)
        places = x.permute(0, 3, 4, 1, 2)  # (B, H, W, C, T)
        return self.block(places.flatten(0, 2)).unflatten(0, places.shape[:3]).permute(0, 3, 4, 1, 2)


def add_time(module: nn.Module) -> None:
    """Replace layers over height and width by layers over time too, which see one frame each, in place."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            setattr(module, name, _over_time(child))
        elif isinstance(child, nn.BatchNorm2d):
            setattr(module, name, nn.BatchNorm3d(child.num_features))
        else:
            add_time(child)


def _over_time(conv: nn.Conv2d) -> nn.Conv3d:
    sizes = {
        "kernel_size": (1, *conv.kernel_size),
        "stride": (1, *conv.stride),
        "padding": (0, *conv.padding),
    }
    new = nn.Conv3d(
        conv.in_channels, conv.out_channels, **sizes, groups=conv.groups, bias=conv.bias is not None
    )
    new.load_state_dict(
        {name: value.unsqueeze(2) if value.dim() == 4 else value for name, value in conv.state_dict().items()}
    )
    return new


def _inflate(conv: nn.Conv3d, frames: int) -> None:
    """Let a convolution see several frames, in place."""
    conv.weight = nn.Parameter(inflated(conv.weight.detach(), frames))
    conv.kernel_size = (frames, *conv.kernel_size[1:])
    conv.padding = (frames // 2, *conv.padding[1:])


def inflated(weight: Tensor, frames: int) -> Tensor:
    """The weight (O, I, frames, k, k) for a repeated frame that (O, I, 1, k, k) is for one (Section 4)."""
    return weight.expand(-1, -1, frames, -1, -1) / frames
