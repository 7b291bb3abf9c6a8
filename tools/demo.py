#!/usr/bin/env python
"""Draw what a model detects into images, a video or what a camera sees: boxes, masks, keypoints, and panoptic
and semantic segmentations.

    python tools/demo.py --config-file CONFIG --input FOLDER 'more/*.png' --output RESULTS \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --video-input video.mp4 --output result.mp4 \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --webcam MODEL.WEIGHTS model_final.pth

Results go into the folder --output under the names of the images; the result of one image may be a file, as
result.jpg. No image is overwritten; older results are. Images that cannot be read are named and skipped, and
the exit code is 1 then. Classes are shown by the names that the first data set of DATASETS.TEST has for them,
or else by their numbers.
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer
from tqdm import tqdm

from nl_detectron.config import check_non_local_keys
from nl_detectron.engine import add_detection_flags, read_config, set_confidence_threshold, tool_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write
from nl_detectron.inspect import find_images, use_images
from nl_detectron.predictor import Predictor

# Into which OpenCV writes colours; .pgm is grey.
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
VIDEO, CODEC = ".mp4", "mp4v"  # every OpenCV with FFmpeg writes this
SIDES = range(3, 2**16)  # in pixels: Detectron2 draws no masks of 2 x H, and Matplotlib no larger pictures
WINDOW = "detections: q or Esc ends it"


def main() -> None:
    args = _parser().parse_args()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # keeps OpenCV's own lines off the terminal
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with one_line_errors():
        cfg, given = read_config(args)
        check_non_local_keys(cfg, given)
        set_confidence_threshold(cfg, args.confidence_threshold, given)
        if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
            raise UserError("MODEL.META_ARCHITECTURE ProposalNetwork gives proposals, which are not drawn.")
        if args.webcam == bool(args.output):
            raise UserError("Leave out --output with --webcam." if args.webcam else "Give an --output.")
        if args.webcam:
            run_on_webcam(cfg, args.allow_mismatch)
        elif args.video_input:
            run_on_video(cfg, args.allow_mismatch, args.video_input, args.output)
        else:
            run_on_images(cfg, args.allow_mismatch, find_images(args.input), args.output)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--input", nargs="+", metavar="FILES", help="images, folders of images, patterns in quotes"
    )
    source.add_argument("--video-input", type=Path, metavar="FILE", help="a video that OpenCV reads")
    source.add_argument("--webcam", action="store_true", help="the first camera, shown in a window")
    parser.add_argument("--output", type=Path, help="a folder, a file for one image, or .mp4 for a video")
    add_detection_flags(parser)
    return parser


def load(cfg: CfgNode, allow_mismatch: bool) -> Predictor:
    predictor = Predictor(cfg, allow_mismatch)
    print(predictor.report)
    return predictor


def run_on_images(cfg: CfgNode, allow_mismatch: bool, images: Sequence[Path], output: Path) -> None:
    paths = output_paths(images, output)
    predictor = load(cfg, allow_mismatch)
    written = []

    def draw_into(image: Path, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        if height not in SIDES or width not in SIDES:
            raise UserError(f"{str(image)!r} of {width} x {height} pixels is too small or too large to draw.")
        write_image(paths[image], draw(pixels, predictor(pixels), predictor.metadata))
        written.append(image)

    try:
        use_images(images, draw_into)
    finally:
        print(f"written: {len(written)} image{'s' * (len(written) != 1)} to {str(output)!r}")


def output_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the result of each image goes: `output` itself for one image if it has a suffix, else files of
    the same names in it, a folder, which is made.

    Raises:
        UserError: if an image would be overwritten, two results have the same name, or OpenCV cannot write
            images of a suffix.
    """
    is_file = not output.is_dir() and (len(images) == 1 or output.suffix in IMAGES) and output.suffix != ""
    if is_file and len(images) > 1:
        raise UserError(f"--output {str(output)!r} is one file for {len(images)} images. Give a folder.")
    paths = {image: output if is_file else output / image.name for image in images}
    originals = {os.path.realpath(image) for image in images}
    sources: dict[Path, Path] = {}
    for image, path in paths.items():
        other = sources.setdefault(path, image)
        if other != image:
            raise UserError(f"{str(other)!r} and {str(image)!r} would both be {str(path)!r}. Rename one.")
        if os.path.realpath(path) in originals:
            raise UserError(f"{str(path)!r} would be overwritten. Give another --output.")
        if path.suffix.lower() not in IMAGES:
            raise UserError(f"{str(path)!r} cannot be written. Give an --output with a suffix like .jpg.")
    next(iter(sources)).parent.mkdir(parents=True, exist_ok=True)
    return paths


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image (H, W, 3) in the format of its suffix, atomically."""
    is_encoded, data = cv2.imencode(path.suffix, image)  # not imwrite, which ends at names that are not UTF-8
    if not is_encoded:
        height, width = image.shape[:2]
        raise UserError(f"{str(path)!r} cannot hold {width} x {height} pixels. Give another format.")
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(data)


def run_on_video(cfg: CfgNode, allow_mismatch: bool, video: Path, output: Path) -> None:
    if output.is_dir() or not output.suffix:
        output = output / video.with_suffix(VIDEO).name
    if output.suffix != VIDEO or os.path.realpath(output) == os.path.realpath(video):
        raise UserError(
            f"--output must be a folder or a {VIDEO}, but not --video-input; got {str(output)!r}."
        )
    if not video.is_file():
        raise UserError(f"--video-input {str(video)!r} does not exist.")
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise UserError(f"--video-input {str(video)!r} is not a video that OpenCV reads.")
    predictor = load(cfg, allow_mismatch)
    output.parent.mkdir(parents=True, exist_ok=True)
    expected = count_frames(capture)
    frames = draw_frames(predictor, read_frames(capture))
    with tqdm(frames, desc="drawing", unit="frame", total=expected or None) as progress:
        count = write_video(output, progress, capture.get(cv2.CAP_PROP_FPS))
    print(f"written: {count} frame{'s' * (count > 1)} to {str(output)!r}")
    if count < expected - 1:  # OpenCV rounds what it estimates
        raise UserError(f"--video-input {str(video)!r} is cut short: {count} of {expected} frames are there.")


def read_frames(capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """The frames of a video or a camera, (H, W, 3) uint8, BGR, until it has no more."""
    has_frame, frame = capture.read()
    while has_frame:
        yield frame
        has_frame, frame = capture.read()


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write frames (H, W, 3) uint8, BGR, of one size as they come; the file gets its name at the end.

    An odd side loses a pixel, as in MPEG-4.

    Returns:
        How many they are.

    Raises:
        UserError: if there are none, or OpenCV cannot write them.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise UserError("--video-input has no frames.")
    height, width = first.shape[:2]
    count = 0
    with atomic_write(path) as unfinished:
        writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter_fourcc(*CODEC), fps, (width, height))
        try:
            for frame in itertools.chain([first], frames) if writer.isOpened() else ():
                writer.write(frame)
                count += 1
        finally:
            writer.release()
        if not count or count_frames(cv2.VideoCapture(str(unfinished))) != count:  # OpenCV reports no failure
            size = f"{width} x {height} pixels at {fps:g} frames a second"
            raise UserError(f"{str(path)!r} cannot be written: {size}, {CODEC}. Is there room for it?")
    return count


def count_frames(capture: cv2.VideoCapture) -> int:
    """How many frames a video says that it has: an estimate if its container has no count, perhaps 0."""
    return max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)


def run_on_webcam(cfg: CfgNode, allow_mismatch: bool) -> None:
    # OpenCV would abort the program
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        raise UserError("--webcam needs a display, and DISPLAY is not set. Use --video-input.")
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise UserError("--webcam needs a camera, and OpenCV finds none.")
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise UserError(
            "--webcam needs an OpenCV with windows. Install opencv-python in place of opencv-python-headless."
        ) from None
    predictor = load(cfg, allow_mismatch)
    for frame in tqdm(draw_frames(predictor, read_frames(camera)), desc="drawing", unit="frame"):
        cv2.imshow(WINDOW, frame)
        if cv2.waitKey(1) in (ord("q"), 27):  # 27: Esc
            break
    camera.release()
    cv2.destroyAllWindows()


def draw(image: np.ndarray, output: Mapping[str, object], metadata: Metadata) -> np.ndarray:
    """Draw the output of a Detectron2 model into a copy of its image (H, W, 3) uint8, BGR."""
    visualizer = Visualizer(image[:, :, ::-1], metadata)
    for method, arguments in _layers(output):
        getattr(visualizer, method)(*arguments)
    return visualizer.output.get_image()[:, :, ::-1]


def draw_frames(predictor: Predictor, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Draw what is detected in frames (H, W, 3) uint8, BGR, one at a time; an object keeps its colour."""
    visualizer = VideoVisualizer(predictor.metadata)
    for frame in frames:
        picture = frame[:, :, ::-1]
        for method, arguments in _layers(predictor(frame)):
            picture = getattr(visualizer, method)(picture, *arguments).get_image()
        yield np.ascontiguousarray(picture[:, :, ::-1])


def _layers(output: Mapping[str, object]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The method of both visualizers for each part of an output, and what it takes, on the CPU."""
    if "panoptic_seg" in output:  # which has the other two in it
        segmentation, segments = output["panoptic_seg"]
        yield "draw_panoptic_seg_predictions", (segmentation.cpu(), segments)
        return
    if "sem_seg" in output:
        yield "draw_sem_seg", (output["sem_seg"].argmax(dim=0).cpu(),)
    if "instances" in output:
        yield "draw_instance_predictions", (output["instances"].to("cpu"),)


if __name__ == "__main__":
    main()
