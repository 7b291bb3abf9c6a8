from detectron2.config import get_cfg
from detectron2.model_zoo import get_config

_cfg = get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train
# Detectron2 0.5 decays the biases of norms in a YAML, and main does not: here it is as in the YAML of either.
optimizer.params.weight_decay_bias = get_cfg().SOLVER.WEIGHT_DECAY_BIAS
