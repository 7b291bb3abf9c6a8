"""What the tests share: a seed, and a folder of videos."""

from pathlib import Path

import numpy as np
import pytest
from made_videos import numbered, write_video


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
