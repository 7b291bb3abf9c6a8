from detectron2.model_zoo import get_config

from .keypoint_rcnn_R_101_FPN_1x import dataloader, model, optimizer, train

lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_3x
train.max_iter = 270000
