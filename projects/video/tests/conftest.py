"""What the tests share: light networks, and folders of videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_videos import numbered, write_video
from torch import nn
from torchvision.models.resnet import Bottleneck


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def kinetics_folder(tmp_path: Path) -> Path:
    """Two classes with two videos each to train on, one to test on, and one that cannot be read."""
    root = tmp_path / "kinetics"
    rng = np.random.default_rng(0)
    for split, names in {"train": ("a", "b"), "val": ("c",)}.items():
        for label in ("jumping", "reading"):
            for name in names:
                frames = numbered(12) // 2 + rng.integers(0, 100, dtype=np.uint8)
                write_video(root / split / label / f"{name}.mp4", frames)
    (root / "val" / "jumping" / "damaged.mp4").write_bytes(b"no video")
    return root


def with_lively_norms(net: nn.Module) -> nn.Module:
    """Random statistics and scales in all norms, so that nothing is hidden by zeros and ones."""
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


@pytest.fixture
def light() -> dict[str, object]:
    """Arguments with which torchvision's R50 has a block in each stage."""
    return {"block": Bottleneck, "layers": [1, 1, 2, 1]}
