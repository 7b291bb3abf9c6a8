"""C2D R50 (Table 1)."""

from detectron2.config import LazyCall
from nl_video.classifier import VideoClassifier
from nl_video.nets import c2d

from .kinetics import dataloader, lr_multiplier, optimizer, train

model = LazyCall(VideoClassifier)(net=LazyCall(c2d)(depth=50))
train.output_dir = "output/video/c2d_R50_32f"
