from nl_detectron import NonLocalKRCNNConvDeconvUpsampleHead

from .keypoint_rcnn_R_101_FPN_1x import dataloader, lr_multiplier, model, optimizer, train

model.roi_heads.keypoint_head._target_ = NonLocalKRCNNConvDeconvUpsampleHead
