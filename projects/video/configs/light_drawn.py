"""A light C2D with a block, on drawn videos, in minutes on a CPU."""

from detectron2.config import LazyCall
from nl_video.classifier import VideoClassifier
from nl_video.comparison import light_net

from .kinetics import dataloader, lr_multiplier, optimizer, train

model = LazyCall(VideoClassifier)(net=LazyCall(light_net)(arm="+1 NL, spacetime"), window=4)
train.device, train.output_dir, train.init_checkpoint = "cpu", "output/drawn_videos/trained", ""
train.max_iter, train.checkpoint_period = 200, 100
dataloader.train.dataset.records.root = dataloader.test.dataset.root = "output/drawn_videos"
dataloader.train.total_batch_size, dataloader.train.num_workers, dataloader.test.num_workers = 16, 1, 0
for mapper in (dataloader.train.dataset.mapper, dataloader.test.mapper):
    mapper.frames, mapper.step, mapper.short_side, mapper.crop, mapper.clips = 16, 1, [64], 64, 1
optimizer.lr = 0.05
lr_multiplier.milestones = [100, 160, 200]
