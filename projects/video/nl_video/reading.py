"""Clips of video files, decoded with PyAV."""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import av
import numpy as np

Starts = Callable[[int], Sequence[int]]  # the first frames of clips, for the number of frames of a video
Resize = Callable[[np.ndarray], np.ndarray]


class UnreadableVideoError(Exception):
    """A file that no frame can be decoded of."""


def random_start(rng: np.random.Generator, span: int) -> Starts:
    """One clip of `span` consecutive frames, anywhere in the video (Section 4.1)."""
    return lambda count: [int(rng.integers(max(count - span, 0) + 1))]


def even_starts(clips: int, span: int) -> Starts:
    """Clips evenly over the whole video (Section 4.1: 10)."""
    return lambda count: np.linspace(0, max(count - span, 0), clips).round().astype(int).tolist()


def read_clips(
    path: Path, starts: Starts, frames: int, step: int, resize: Resize = lambda frame: frame
) -> np.ndarray:
    """(K, frames, H, W, 3) uint8, RGB: every `step`-th frame from each start.

    A frame that cannot be decoded is the one before it, so that the end of a short video is repeated.

    Args:
        resize: each frame (H, W, 3) as soon as it is decoded: many large ones would fill the memory.

    Raises:
        UnreadableVideoError: if nothing can be decoded.
    """
    try:
        first = starts(_count(path))
        wanted = [[start + step * k for k in range(frames)] for start in first]
        numbers = {each for clip in wanted for each in clip}
        decoded = _decode(path, numbers, resize, seek=True) if min(numbers) else {}
        decoded = decoded or _decode(path, numbers, resize, seek=False)
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UnreadableVideoError(f"{path}: {error}") from error
    if not decoded:
        raise UnreadableVideoError(f"{path}: it has no frames")
    there = sorted(decoded)
    nearest = {each: there[max(bisect_right(there, each) - 1, 0)] for each in numbers}
    return np.stack([[decoded[nearest[each]] for each in clip] for clip in wanted])


def _open(path: Path) -> av.container.InputContainer:
    return av.open(str(path), metadata_errors="ignore")  # titles in any encoding


def _count(path: Path) -> int:
    """The number of frames: as the file says, or by its packets. A duration says nothing where frames follow
    at a variable rate, as of a screen.
    """
    with _open(path) as container:
        stream = container.streams.video[0]
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def _decode(path: Path, wanted: set[int], resize: Resize, seek: bool) -> dict[int, np.ndarray]:
    """The wanted frames by number, in the size of the first one; the last one if the video ends earlier.

    Args:
        seek: begin at the key frame before the first one; {} if the file leads elsewhere.
    """
    decoded, number, frame, size = {}, 0, None, {}
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        begin, rate = stream.start_time or 0, stream.average_rate
        if seek and not rate:
            return {}
        try:
            if seek:
                container.seek(begin + int(min(wanted) / rate / stream.time_base), stream=stream)
            for k, frame in enumerate(container.decode(stream)):
                if k == 0:
                    size = {"width": frame.width, "height": frame.height}
                    if seek and frame.pts is not None:
                        number = round((frame.pts - begin) * stream.time_base * rate)
                    if number > min(wanted) or (seek and frame.pts is None):
                        return {}
                if number in wanted:
                    decoded[number] = resize(_pixels(frame, size))
                if number >= max(wanted):
                    return decoded
                number += 1
        except av.FFmpegError:
            if frame is None:
                if seek:
                    return {}  # a file without an index, or damaged
                raise
    if frame is not None:
        decoded[number - 1] = resize(_pixels(frame, size))
    return decoded


def _pixels(frame: av.VideoFrame, size: Mapping[str, int]) -> np.ndarray:
    """(H, W, 3) of a frame of this size, turned as the file says, as phones write it."""
    return np.rot90(frame.to_ndarray(format="rgb24", **size), frame.rotation // 90)
