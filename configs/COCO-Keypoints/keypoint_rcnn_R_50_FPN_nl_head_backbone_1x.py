from nl_detectron import non_local_fpn

from .keypoint_rcnn_R_50_FPN_nl_head_1x import dataloader, lr_multiplier, model, optimizer, train

model.backbone._target_ = non_local_fpn
model.backbone.placement = {"res4": [-1]}
