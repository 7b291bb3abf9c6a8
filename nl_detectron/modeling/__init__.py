"""Where non-local blocks go. Importing it registers the backbones and the keypoint head."""

from .backbone import (
    build_nl_resnet_backbone,
    build_nl_resnet_fpn_backbone,
    build_nl_retinanet_resnet_fpn_backbone,
    non_local_fpn,
    non_local_resnet,
)
from .keypoint_head import NonLocalKRCNNConvDeconvUpsampleHead
from .placement import (
    insert_child,
    insert_non_local,
    insert_non_local_keypoint,
    non_local_blocks,
    strides_in_resnets,
    summarize_non_local,
)
from .positions import locate_in_float32
