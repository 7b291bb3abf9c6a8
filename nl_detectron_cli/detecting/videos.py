"""Videos and cameras: their frames, and what is detected in them, drawn."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.utils import video_visualizer
from tqdm import tqdm

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write
from nl_detectron.inspect import LabelVisualizer

COUNTED = (".mp4", ".m4v", ".mov", ".avi")  # containers with a count of frames
VIDEO, CODEC = ".mp4", "mp4v"  # every OpenCV with FFmpeg writes this
WINDOW = "detections: q or Esc ends it"
Detections = Iterable[tuple[np.ndarray, Mapping[str, object]]]  # frames (H, W, 3) uint8, BGR, and outputs


def video_path(video: Path, output: Path) -> Path:
    """Where the drawn video goes: to `output` if that is a .mp4, else into it, a folder."""
    path = output if output.suffix == VIDEO else output / video.with_suffix(VIDEO).name
    if os.path.realpath(path) == os.path.realpath(video):
        raise UserError(f"{str(video)!r} would be overwritten. Give another --output.")
    return path


def open_video(video: Path) -> cv2.VideoCapture:
    if not video.is_file():
        raise UserError(f"--video-input {str(video)!r} does not exist.")
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise UserError(f"--video-input {str(video)!r} is not a video that OpenCV reads.")
    return capture


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of a video or a camera, (H, W, 3) uint8, BGR, until it has no more."""
    while (read := capture.read())[0]:
        yield read[1]


def check_frames(count: int, expected: int, is_counted: bool = True) -> None:
    """Reject a video without frames, or with fewer than its container says.

    Args:
        is_counted: whether it has a count. Else `expected` is an estimate, of a constant rate.
    """
    if not count:
        raise UserError("--video-input has no frames that OpenCV reads.")
    if count < expected - 1:  # OpenCV rounds what it estimates
        if is_counted:
            raise UserError(f"--video-input is cut short: it has {count} of {expected} frames.")
        print(f"frames in --video-input: {count}; at a constant rate {expected}", file=sys.stderr)


def write_video(frames: Iterable[np.ndarray], capture: cv2.VideoCapture, path: Path) -> int:
    """Write drawn frames into a video as fast as another one; return their number.

    The video gets its name at the end. An odd side loses a pixel, as in MPEG-4.
    """
    fps = frame_rate(capture.get(cv2.CAP_PROP_FPS))
    path.parent.mkdir(parents=True, exist_ok=True)
    writer, count = None, 0
    with atomic_write(path) as unfinished:
        for frame in frames:
            if writer is None:
                height, width = frame.shape[:2]
                code = cv2.VideoWriter_fourcc(*CODEC)
                writer = cv2.VideoWriter(str(unfinished), code, fps, (width, height))
            writer.write(frame)
            count += 1
        check_frames(count, 0)
        writer.release()
        if count_frames(cv2.VideoCapture(str(unfinished))) != count:  # OpenCV reports no failure
            size = f"{width} x {height} pixels at {fps:g} frames a second"
            raise UserError(f"{str(path)!r} cannot be written: {size}, {CODEC}. Is there room for it?")
    print(f"frames written to {str(path)!r}: {count}")
    return count


def frame_rate(fps: float) -> float:
    """A rate that MPEG-4 can hold, as thousandths or as an integer; 25 for one that no video has."""
    if not 0.5 <= fps <= 1000:  # nan too
        print(f"The video says {fps:g} frames a second; the drawn one has 25.", file=sys.stderr)
        return 25.0
    return round(fps, 3) if fps < 65 else float(round(fps))


def count_frames(capture: cv2.VideoCapture) -> int:
    """How many frames a video says that it has: an estimate if its container has no count, perhaps 0."""
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def open_camera() -> cv2.VideoCapture:
    # without a display OpenCV would abort the program
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        raise UserError("--webcam needs a display, and DISPLAY is not set. Use --video-input.")
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise UserError("--webcam needs a camera, and OpenCV finds none.")
    return camera


def show(frames: Iterable[np.ndarray]) -> None:
    """Show frames in a window until q or Esc is pressed."""
    cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    for frame in tqdm(frames, desc="drawing", unit="frame"):
        cv2.imshow(WINDOW, frame)
        if cv2.waitKey(1) in (ord("q"), 27):  # 27: Esc
            break
    cv2.destroyAllWindows()


def draw_frames(
    detections: Detections, metadata: Metadata, scale: float | None = None
) -> Iterator[np.ndarray]:
    """Draw what is detected into frames, (H, W, 3) uint8, BGR; an object keeps its colour.

    Pictures are `scale` times as large as the frames; None: as `picture_scale` says.
    """
    visualizer = video_visualizer.VideoVisualizer(metadata)
    of_frames = partial(LabelVisualizer, scale=scale)
    for frame, output in detections:
        picture = frame[:, :, ::-1]
        with mock.patch.object(video_visualizer, "Visualizer", of_frames):  # which has no argument for it
            if "panoptic_seg" in output:
                segmentation, segments = output["panoptic_seg"]
                drawn = visualizer.draw_panoptic_seg_predictions(picture, segmentation.cpu(), segments)
            elif "instances" in output:
                drawn = visualizer.draw_instance_predictions(picture, output["instances"].to("cpu"))
            else:
                drawn = visualizer.draw_sem_seg(picture, output["sem_seg"].argmax(dim=0).cpu())
        yield np.ascontiguousarray(drawn.get_image()[:, :, ::-1])
