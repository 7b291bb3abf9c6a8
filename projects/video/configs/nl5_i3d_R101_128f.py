"""128 consecutive frames (Table 2g), from the weights of 32: 2 clips on each of 8 GPUs, norms as they are."""

from .nl5_i3d_R101_32f import dataloader, lr_multiplier, model, optimizer, train

model.freeze_norms = True
for mapper in (dataloader.train.dataset.mapper, dataloader.test.mapper):
    mapper.frames, mapper.step = 128, 1
dataloader.train.total_batch_size = 16
optimizer.lr = 0.0025
train.init_checkpoint = "output/video/nl5_i3d_R101_32f/model_final.pth"
train.output_dir = "output/video/nl5_i3d_R101_128f"
