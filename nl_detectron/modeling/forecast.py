"""What the non-local blocks of a model compute and hold, for an image size, before it is run."""

from collections.abc import Iterator

from detectron2.modeling.roi_heads.keypoint_head import KRCNNConvDeconvUpsampleHead
from torch import nn

from nl_detectron.layers import Forecast, NonLocalBlock, forecast_block

from .placement import strides_in_resnets


def forecast_non_local(
    model: nn.Module, height: int, width: int, *, images: int = 1, rois: int = 100, training: bool = False
) -> Forecast:
    """The forecast of all blocks in the ResNets and keypoint heads of a Detectron2 model together.

    Args:
        height, width: of the images in pixels, after resizing and padding.
        rois: those that the keypoint head sees, of each image.
        training: forward and backward pass, and what is kept between them; else a forward pass.

    Returns:
        The sums of multiply-adds and of bytes kept. The peak is that of the block with the largest, while
        what the others keep is there as well.
    """
    forecasts = [
        forecast_block(block, images, (-(-height // stride), -(-width // stride)), training)
        for block, stride in strides_in_resnets(model)
    ]
    forecasts += [forecast_block(block, images * rois, size, training) for block, size in _in_heads(model)]
    kept = sum(forecast.kept for forecast in forecasts)
    transient = max((forecast.peak - forecast.kept for forecast in forecasts), default=0)
    return Forecast(sum(forecast.multiply_adds for forecast in forecasts), kept, kept + transient)


def _in_heads(model: nn.Module) -> Iterator[tuple[NonLocalBlock, tuple[int, int]]]:
    """Each block of a keypoint head, with the size of its map, which is that of the pooler."""
    for parent in (module for module in model.modules() if hasattr(module, "keypoint_pooler")):
        for head in (head for head in parent.children() if isinstance(head, KRCNNConvDeconvUpsampleHead)):
            for block in (child for child in head if isinstance(child, NonLocalBlock)):
                yield block, parent.keypoint_pooler.output_size
