"""I3D R101 with 5 non-local blocks."""

from nl_video.nets import PLACES

from .nl5_i3d_R50_32f import dataloader, lr_multiplier, model, optimizer, train

model.net.net.depth = 101
model.net.placement = PLACES[5][101]
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
train.output_dir = "output/video/nl5_i3d_R101_32f"
