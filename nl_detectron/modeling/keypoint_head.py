"""The keypoint head of Section 6: non-local blocks after every 2 of its 8 convolutions."""

from collections.abc import Mapping, Sequence

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.keypoint_head import (
    ROI_KEYPOINT_HEAD_REGISTRY,
    KRCNNConvDeconvUpsampleHead,
)

from nl_detectron.config import block_arguments, non_local_node, reported_as_config_keys
from nl_detectron.layers import check_block_arguments

from .placement import check_every, insert_non_local_keypoint


@ROI_KEYPOINT_HEAD_REGISTRY.register()
class NonLocalKRCNNConvDeconvUpsampleHead(KRCNNConvDeconvUpsampleHead):
    """`KRCNNConvDeconvUpsampleHead` with non-local blocks between its convolutions, under names of their own:
    the other keys of the state dict are Detectron2's.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_keypoints: int,
        conv_dims: Sequence[int],
        non_local_every: int = 2,
        non_local_arguments: Mapping[str, object] | None = None,
        **kwargs: object,
    ) -> None:
        """
        Args:
            input_shape, num_keypoints, conv_dims, kwargs: Detectron2's own.
            non_local_every: a block comes after every so many convolutions.
            non_local_arguments: keyword arguments of `NonLocalBlock`.

        Raises:
            ArgumentError: (a ValueError) for a bad value, or if no block would be placed.
        """
        super().__init__(input_shape, num_keypoints=num_keypoints, conv_dims=conv_dims, **kwargs)
        # After Detectron2's initialisation, which would undo that of the blocks. What is built after this
        # head is then initialised as in the baseline of the same seed.
        with torch.random.fork_rng(devices=[]):
            insert_non_local_keypoint(self, non_local_every, **(non_local_arguments or {}))

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, object]:
        arguments = super().from_config(cfg, input_shape)
        every, block = non_local_node(cfg).KEYPOINT_HEAD_EVERY, block_arguments(cfg)
        conv_dims = arguments["conv_dims"]
        with reported_as_config_keys():
            check_every(every, len(conv_dims))
            for channels in conv_dims[every - 1 :: every]:
                check_block_arguments(channels, **block)
        return {**arguments, "non_local_every": every, "non_local_arguments": block}
