"""Charades (Section 5.2), from the weights of Kinetics: a clip on each of 8 GPUs, crops of 288 pixels."""

from detectron2.config import LazyCall
from nl_video.sources import CHARADES_CLASSES, charades

from .nl5_i3d_R101_128f import dataloader, lr_multiplier, model, optimizer, train

model.net.net.num_classes = CHARADES_CLASSES
model.multi_label, model.window = True, 9
dataloader.evaluator.multi_label = True
dataloader.train.dataset.records = LazyCall(charades)(root="datasets/charades", split="train")
dataloader.test.dataset = LazyCall(charades)(root="datasets/charades", split="test")
# The crop of Kinetics, enlarged to 288 pixels.
dataloader.train.dataset.mapper.short_side, dataloader.train.dataset.mapper.crop = [329, 411], 288
dataloader.test.mapper.short_side = [320]
dataloader.train.total_batch_size = 8
optimizer.lr = 0.00125
lr_multiplier.milestones = [75000, 150000, 200000]
train.max_iter = 200000
train.init_checkpoint = "output/video/nl5_i3d_R101_128f/model_final.pth"
train.output_dir = "output/video/nl5_i3d_R101_128f_charades"
