"""Videos through OpenCV, a frame at a time."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from .errors import UserError
from .files import written_whole

SUFFIX, CODEC = ".mp4", "mp4v"  # which every OpenCV with FFmpeg writes


def open_video(path: Path) -> cv2.VideoCapture:
    """A video file, to be read.

    Raises:
        UserError: if OpenCV cannot.
    """
    _check_name(path, "--video-input")
    if not path.is_file():
        raise UserError(f"--video-input must be a file; got {str(path)!r}, and there is no such file.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise UserError(f"--video-input must be a video that OpenCV reads; got {str(path)!r}.")
    return capture


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of a video or a camera, (H, W, 3) uint8, BGR, until it has no more."""
    while True:
        has_frame, frame = capture.read()
        if not has_frame:
            return
        yield frame


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write frames as they come; the file gets its name at the end. An odd side loses a pixel, as in MPEG-4.

    Args:
        frames: (H, W, 3) uint8, BGR, all of the same size.

    Returns:
        How many they are.

    Raises:
        UserError: if there are none, or OpenCV cannot write them.
    """
    _check_name(path, "--output")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError("--video-input must have frames; it has none.")
    height, width = first.shape[:2]
    count = 0
    with written_whole(path) as unfinished:
        writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter_fourcc(*CODEC), fps, (width, height))
        try:
            for frame in itertools.chain([first], frames) if writer.isOpened() else ():
                writer.write(frame)
                count += 1
        finally:
            writer.release()
        if not count or count_frames(cv2.VideoCapture(str(unfinished))) != count:  # as OpenCV says nothing
            raise UserError(
                f"{str(path)!r} cannot be written: {width} x {height} pixels at {fps:g} frames a second, "
                f"{CODEC}. Is there room for it?"
            )
    return count


def _check_name(path: Path, flag: str) -> None:
    """Refuse a name with which OpenCV ends the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{flag} must have a name in UTF-8; got {str(path)!r}. Rename it.") from None


def count_frames(capture: cv2.VideoCapture) -> int:
    """How many frames a video says that it has; some containers have no count, and OpenCV estimates it."""
    return int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
