"""I3D R50 with 3x1x1 kernels."""

from detectron2.config import LazyCall
from nl_video.classifier import VideoClassifier
from nl_video.nets import i3d

from .kinetics import dataloader, lr_multiplier, optimizer, train

model = LazyCall(VideoClassifier)(net=LazyCall(i3d)(depth=50))
train.output_dir = "output/video/i3d_R50_32f"
