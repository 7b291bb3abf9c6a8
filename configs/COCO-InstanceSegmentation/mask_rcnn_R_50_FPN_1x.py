from detectron2.config import get_cfg
from detectron2.model_zoo import get_config

from nl_detectron.compat import build_seeded_train_loader

_cfg = get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py")
dataloader, lr_multiplier, model = _cfg.dataloader, _cfg.lr_multiplier, _cfg.model
optimizer, train = _cfg.optimizer, _cfg.train
# From the same seed, the numbers of the YAML: the order of its data, and the decay of its biases, which in
# Detectron2 0.5 are those of norms too.
dataloader.train._target_ = build_seeded_train_loader
dataloader.train.seed = "${oc.select:train.seed,-1}"
optimizer.params.weight_decay_bias = get_cfg().SOLVER.WEIGHT_DECAY_BIAS
