# Weights and pixel statistics: see mask_rcnn_X_152_32x8d_FPN_1x.yaml.
from detectron2.config import LazyCall as L
from detectron2.modeling.backbone import BottleneckBlock, ResNet

from .mask_rcnn_R_50_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

# `ResNet.make_default_stages` has no bottlenecks of another width than ResNet's.
model.backbone.bottom_up.stages = [
    L(ResNet.make_stage)(
        block_class=BottleneckBlock,
        num_blocks=num_blocks,
        stride_per_block=[min(2, 1 + stage)] + [1] * (num_blocks - 1),
        in_channels=64 if stage == 0 else 128 * 2**stage,
        out_channels=256 * 2**stage,
        bottleneck_channels=256 * 2**stage,
        num_groups=32,
        stride_in_1x1=False,
        norm="FrozenBN",
    )
    for stage, num_blocks in enumerate([3, 8, 36, 3])
]
train.init_checkpoint = "catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k"
