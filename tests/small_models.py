"""ResNets and keypoint heads with few channels, and the order of their children."""

from detectron2.data.transforms import Augmentation
from detectron2.engine import DefaultPredictor
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone.resnet import BasicBlock, BasicStem, ResNet
from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import nn

from nl_detectron import get_cfg

BLOCKS_PER_STAGE = {
    18: [2, 2, 2, 2],
    34: [3, 4, 6, 3],
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
}


def resnet(
    blocks: list[int],
    block_class: type = BasicBlock,
    freeze_at: int = 0,
    out_features: tuple[str, ...] = ("res2", "res3", "res4", "res5"),
    **arguments: object,
) -> ResNet:
    """A ResNet with few channels."""
    stages, in_channels = [], 8
    for stage, (count, out_channels) in enumerate(zip(blocks, (8, 16, 32, 64), strict=True)):
        if block_class is not BasicBlock:
            arguments["bottleneck_channels"] = 8
        stages.append(
            ResNet.make_stage(
                block_class,
                count,
                stride_per_block=[1 if stage == 0 else 2] + [1] * (count - 1),
                in_channels=in_channels,
                out_channels=out_channels,
                **arguments,
            )
        )
        in_channels = out_channels
    return ResNet(BasicStem(3, 8), stages, out_features=list(out_features), freeze_at=freeze_at)


def head(convolutions: int = 8) -> KRCNNConvDeconvUpsampleHead:
    return KRCNNConvDeconvUpsampleHead(
        ShapeSpec(channels=16, height=14, width=14),
        num_keypoints=17,
        conv_dims=[32] * convolutions,
        loss_normalizer=1.0,
    )


def order(stage: nn.Sequential) -> list[str]:
    return [name for name, _ in stage.named_children()]


def predictor(model: nn.Module, resize: Augmentation, input_format: str = "BGR") -> DefaultPredictor:
    """Detectron2's, of a model that is there."""
    made = DefaultPredictor.__new__(DefaultPredictor)
    made.cfg = get_cfg()
    made.cfg.MODEL.DEVICE = "cpu"
    made.model, made.aug, made.input_format = model, resize, input_format
    return made
