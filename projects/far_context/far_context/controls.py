"""Controls: other blocks in the place of the non-local one, and non-local blocks with one thing changed.

Importing this module registers their backbones with Detectron2, `build_<name>_resnet_fpn_backbone` for each
name of ADDED and CHANGED. All of them start as the identity, and what is built after them starts as in the
baseline of the same seed. It registers a keypoint head, too, whose blocks don't start as the identity.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from unittest import mock

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import CNNBlockBase, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN
from detectron2.modeling.backbone.fpn import build_resnet_fpn_backbone
from detectron2.modeling.roi_heads.keypoint_head import ROI_KEYPOINT_HEAD_REGISTRY
from fvcore.nn.weight_init import c2_msra_fill
from torch import Tensor, nn

from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import (
    NonLocalKRCNNConvDeconvUpsampleHead,
    build_nl_resnet_fpn_backbone,
    insert_child,
    non_local_blocks,
)


def residual_block(last: CNNBlockBase) -> nn.Module:
    """A residual block like `last`, with new weights: Section 5.1, "going deeper".

    The scale of its last norm is zero or, if that is frozen, its last convolution.
    """
    block = deepcopy(last)
    convolutions = [getattr(block, name) for name in ("conv1", "conv2", "conv3") if hasattr(block, name)]
    for convolution in convolutions:
        c2_msra_fill(convolution)
    scale = convolutions[-1].norm.weight
    nn.init.zeros_(scale if scale.requires_grad else convolutions[-1].weight)
    return block


class GlobalContextBlock(CNNBlockBase):
    """Section 3.4 of GCNet (Cao et al., 2019): all positions get the same context, of one softmax map.

        z_i = x_i + W_v2 ReLU(LN(W_v1 sum_j softmax_j(W_k x_j) x_j))

    Its inner channels are C / 2, as in the non-local block; GCNet has C / 16 and C / 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, stride=1)
        self.key = nn.Conv2d(channels, 1, kernel_size=1)
        self.transform = nn.Sequential(
            nn.Conv2d(channels, channels // 2, kernel_size=1),
            nn.LayerNorm([channels // 2, 1, 1]),
            nn.ReLU(),
            nn.Conv2d(channels // 2, channels, kernel_size=1),
        )
        c2_msra_fill(self.transform[0])
        nn.init.zeros_(self.transform[3].weight)
        nn.init.zeros_(self.transform[3].bias)

    def forward(self, x: Tensor) -> Tensor:
        """z (B, C, H, W) of x."""
        weights = self.logits(x).flatten(2).softmax(2)  # (B, 1, N)
        context = (x.flatten(2) * weights).sum(2)[..., None, None]  # (B, C, 1, 1)
        return x + self.transform(context)

    def logits(self, x: Tensor) -> Tensor:
        """Of all positions, (B, 1, H, W)."""
        return self.key(x)


def global_context_block(last: CNNBlockBase) -> nn.Module:
    return GlobalContextBlock(last.in_channels)


class NormedBlock(NonLocalBlock):
    """A non-local block that embeds x with zero mean and unit variance of each channel, and adds x itself."""

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().embed(self.norm_of_x(x))


def own_cells(height: int, width: int) -> Tensor:
    """The pooled cell that each position of a map lies in itself, (H W,)."""
    return (torch.arange(height)[:, None] // 2 * (width // 2) + torch.arange(width) // 2).flatten()


class OthersBlock(NonLocalBlock):
    """A Gaussian block in which no position attends to the pooled cell that it lies in itself."""

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.own = own_cells(*x.shape[2:]).to(x.device)
        return super().embed(x)

    def operate(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        logits = self.logit_scale * theta.transpose(1, 2) @ phi  # (B, N, M)
        return g @ self.weigh(logits).transpose(1, 2)

    def weigh(self, logits: Tensor) -> Tensor:
        """The softmax (B, N, M) of logits over all cells but a position's own."""
        return logits.masked_fill(F.one_hot(self.own, logits.shape[2]).bool(), -torch.inf).softmax(2)


def normed(block: NonLocalBlock) -> None:
    block.norm_of_x = nn.BatchNorm2d(block.in_channels, affine=False)
    block.__class__ = NormedBlock


def others(block: NonLocalBlock) -> None:
    block.__class__ = OthersBlock


def over_channels(block: NonLocalBlock) -> None:
    """The mean product of two positions' channels instead of their sum over sqrt(d)."""
    block.logit_scale = 1 / block.in_channels


def first_weights_as_drawn() -> AbstractContextManager:
    """New concatenation blocks are not centred in it: w_f sees what all channels of x have in common."""
    return mock.patch.object(NonLocalBlock, "_centre")


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class StartedKeypointHead(NonLocalKRCNNConvDeconvUpsampleHead):
    """The head of Section 6, with blocks whose norm after W_z begins with the scale 1, as other norms do."""

    @configurable
    def __init__(self, input_shape: ShapeSpec, **arguments: object) -> None:
        super().__init__(input_shape, **arguments)
        for _, block in non_local_blocks(self):
            nn.init.ones_(block.out.norm.weight)


ADDED: dict[str, Callable[[CNNBlockBase], nn.Module]] = {
    "residual_block": residual_block,
    "global_context": global_context_block,
}
CHANGED: dict[str, Callable[[NonLocalBlock], None]] = {
    "normed": normed,
    "others": others,
    "over_channels": over_channels,
    "as_drawn": lambda block: None,
    "as_drawn_normed": normed,
}


def _builder(name: str) -> Callable[[CfgNode, ShapeSpec], FPN]:
    def build(cfg: CfgNode, input_shape: ShapeSpec) -> FPN:
        if name in CHANGED:
            with first_weights_as_drawn() if name.startswith("as_drawn") else nullcontext():
                fpn = build_nl_resnet_fpn_backbone(cfg, input_shape)
            for _, block in non_local_blocks(fpn):
                CHANGED[name](block)
            return fpn
        fpn = build_resnet_fpn_backbone(cfg, input_shape)
        stage = fpn.bottom_up.res4
        last = stage[-1]
        with torch.random.fork_rng(devices=[]):  # what is built later starts as in the baseline
            block = ADDED[name](last)
        insert_child(stage, name, block, last)
        return fpn

    build.__name__ = f"build_{name}_resnet_fpn_backbone"
    return build


for _name in (*ADDED, *CHANGED):
    BACKBONE_REGISTRY.register(_builder(_name))
