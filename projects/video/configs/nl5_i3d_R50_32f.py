"""I3D R50 with 5 non-local blocks (Section 5.1)."""

from detectron2.config import LazyCall
from nl_video.nets import PLACES, add_non_local

from .i3d_R50_32f import dataloader, lr_multiplier, model, optimizer, train

model.net = LazyCall(add_non_local)(net=model.net, placement=PLACES[5][50], axes="spacetime")
train.output_dir = "output/video/nl5_i3d_R50_32f"
