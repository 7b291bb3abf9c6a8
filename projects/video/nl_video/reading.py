"""Clips of video files, decoded with PyAV."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import av
import numpy as np

Starts = Callable[[int], Sequence[int]]  # the first frames of clips, for the number of frames of a video


class UnreadableVideoError(Exception):
    """A file that no frame can be decoded of."""


def random_start(rng: np.random.Generator, span: int) -> Starts:
    """One clip of `span` consecutive frames, anywhere in the video (Section 4.1)."""
    return lambda count: [int(rng.integers(max(count - span, 0) + 1))]


def even_starts(clips: int, span: int) -> Starts:
    """Clips evenly over the whole video (Section 4.1: 10)."""
    return lambda count: np.linspace(0, max(count - span, 0), clips).round().astype(int).tolist()


def read_clips(path: Path, starts: Starts, frames: int, step: int) -> np.ndarray:
    """(K, frames, H, W, 3) uint8, RGB: every `step`-th frame from each start. A last frame is repeated.

    Raises:
        UnreadableVideoError: if nothing can be decoded.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            first = starts(_count(container, stream))
            wanted = [[start + step * k for k in range(frames)] for start in first]
            decoded = _decode(container, stream, {each for clip in wanted for each in clip})
    except (av.FFmpegError, OSError, IndexError) as error:
        raise UnreadableVideoError(f"{path}: {error}") from error
    if not decoded:
        raise UnreadableVideoError(f"{path}: it has no frames")
    last = max(decoded)
    return np.stack([[decoded.get(each, decoded[last]) for each in clip] for clip in wanted])


def _count(container: av.container.InputContainer, stream: av.video.VideoStream) -> int:
    """The number of frames, by the duration where the file does not tell."""
    if stream.frames:
        return stream.frames
    if stream.duration:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    return round(seconds * float(stream.average_rate or 0))


def _decode(
    container: av.container.InputContainer, stream: av.video.VideoStream, wanted: set[int]
) -> dict[int, np.ndarray]:
    """The wanted frames by number, and the last one of the video if it ends before them.

    Decoding begins at the key frame before the first one.
    """
    begin, rate = stream.start_time or 0, stream.average_rate
    if min(wanted) > 0 and rate:
        with suppress(av.FFmpegError):  # a file without an index is decoded from its beginning
            container.seek(begin + int(min(wanted) / rate / stream.time_base), stream=stream)
    decoded, number, frame = {}, 0, None
    try:
        for k, frame in enumerate(container.decode(stream)):
            if k == 0 and rate and frame.pts is not None:
                number = round((frame.pts - begin) * stream.time_base * rate)
            if number in wanted:
                decoded[number] = frame.to_ndarray(format="rgb24")
            if number >= max(wanted):
                return decoded
            number += 1
    except av.FFmpegError:
        if frame is None:
            raise  # otherwise the file is damaged here, and ends
    if frame is not None:
        decoded[number - 1] = frame.to_ndarray(format="rgb24")
    return decoded
