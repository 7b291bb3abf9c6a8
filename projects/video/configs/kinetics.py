"""Kinetics as Section 4.1 trains and tests: 32 of 64 frames, 64 clips on 8 GPUs, 400k iterations."""

import torch
from detectron2.config import LazyCall
from detectron2.data import build_detection_test_loader, build_detection_train_loader
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler
from nl_video.evaluator import VideoEvaluator
from nl_video.mapper import ClipMapper, ReadableClips
from nl_video.sources import kinetics

train = dict(
    output_dir="???",  # each config has its own
    init_checkpoint="detectron2://ImageNetPretrained/torchvision/R-50.pkl",
    max_iter=400000,
    amp=False,
    checkpoint_period=5000,
    eval_period=0,
    log_period=20,
    device="cuda",
    seed=-1,
)
optimizer = LazyCall(torch.optim.SGD)(
    params=LazyCall(get_default_optimizer_params)(), lr=0.01, momentum=0.9, weight_decay=1e-4
)
lr_multiplier = LazyCall(MultiStepParamScheduler)(
    values=[1.0, 0.1, 0.01], milestones=[150000, 300000, 400000]
)
dataloader = dict(
    train=LazyCall(build_detection_train_loader)(
        dataset=LazyCall(ReadableClips)(
            records=LazyCall(kinetics)(root="datasets/kinetics", split="train"),
            mapper=LazyCall(ClipMapper)(is_train=True, frames=32, step=2),
        ),
        mapper=None,
        total_batch_size=64,
        aspect_ratio_grouping=False,
        num_workers=8,
    ),
    test=LazyCall(build_detection_test_loader)(
        dataset=LazyCall(kinetics)(root="datasets/kinetics", split="val"),
        mapper=LazyCall(ClipMapper)(is_train=False, frames=32, step=2),
        num_workers=8,
    ),
    evaluator=LazyCall(VideoEvaluator)(),
)
