"""Videos that the tests write."""

from pathlib import Path

import av
import numpy as np

LEVELS = 5  # a frame's number is its gray level by so much, which no codec blurs


def write_video(path: Path, frames: np.ndarray, rate: int = 10, codec: str = "mpeg4", gop: int = 4) -> Path:
    """Write frames (T, H, W, 3) uint8, with a key frame every `gop` frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *frames.shape[1:3], "yuv420p", gop
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def numbered(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames whose gray level tells their number."""
    levels = (np.arange(count) * LEVELS + 3).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def numbers_of(clips: np.ndarray) -> list[list[int]]:
    """The numbers of the frames of clips (K, T, H, W, 3)."""
    return (clips.mean((2, 3, 4)) / LEVELS).astype(int).tolist()
