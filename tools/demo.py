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
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import nl_detectron_shapes  # noqa: F401  (registers shapes_val and the like, whose classes have names)
import numpy as np
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
        if args.input is not None:  # before the model is built, which takes a while
            paths = output_paths(find_images(args.input), args.output)
        elif args.video_input:
            path, capture = video_path(args.video_input, args.output), open_video(args.video_input)
        else:
            capture = open_camera()
        predictor = Predictor(cfg, args.allow_mismatch)
        print(predictor.report)
        if args.input is not None:
            draw_images(predictor, paths)
        elif args.video_input:
            draw_video(predictor, capture, path)
        else:
            show(draw_frames(predictor, capture))


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    text = "images, folders of images, patterns in quotes"
    source.add_argument("--input", nargs="+", metavar="FILES", help=text)
    source.add_argument("--video-input", type=Path, metavar="FILE", help="a video that OpenCV reads")
    source.add_argument("--webcam", action="store_true", help="the first camera, shown in a window")
    parser.add_argument("--output", type=Path, help="a folder, a file for one image, or .mp4 for a video")
    add_detection_flags(parser)
    return parser


def output_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the result of each image goes: to `output` if that has the suffix of an image, else into it, a
    folder, under the image's own name.

    Raises:
        UserError: if an image would be overwritten, two results have the same name, or OpenCV cannot write
            images of a suffix.
    """
    is_file = output.suffix.lower() in IMAGES and not output.is_dir()
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
    return paths


def draw_images(predictor: Predictor, paths: Mapping[Path, Path]) -> None:
    """Draw what is detected in each image into a file of its own."""
    written = []

    def draw_into(image: Path, pixels: np.ndarray) -> None:
        if min(pixels.shape[:2]) < 3:
            raise UserError(f"{str(image)!r} has a side below 3 pixels, for which Detectron2 draws no masks.")
        path = paths[image]
        drawn = draw(pixels, predictor(pixels), predictor.metadata)
        is_encoded, data = cv2.imencode(path.suffix, drawn)  # not imwrite, which wants names in UTF-8
        if not is_encoded:
            raise UserError(f"{str(path)!r} cannot hold an image of this size. Give another format.")
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(data)
        written.append(path)

    try:
        use_images(list(paths), draw_into)
    finally:
        print(f"images written: {len(written)}")


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


def draw_video(predictor: Predictor, capture: cv2.VideoCapture, path: Path) -> None:
    """Draw what is detected in a video into another one, which gets its name at the end.

    An odd side loses a pixel, as in MPEG-4.
    """
    fps, expected = frame_rate(capture.get(cv2.CAP_PROP_FPS)), count_frames(capture)
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with atomic_write(path) as unfinished:
        writer = cv2.VideoWriter(str(unfinished), cv2.VideoWriter_fourcc(*CODEC), fps, (width, height))
        frames = draw_frames(predictor, capture)
        for frame in tqdm(frames, desc="drawing", unit="frame", total=expected or None):
            writer.write(frame)
            count += 1
        writer.release()
        if not count:
            raise UserError("--video-input has no frames that OpenCV reads.")
        if count_frames(cv2.VideoCapture(str(unfinished))) != count:  # OpenCV reports no failure
            size = f"{width} x {height} pixels at {fps:g} frames a second"
            raise UserError(f"{str(path)!r} cannot be written: {size}, {CODEC}. Is there room for it?")
    print(f"frames written to {str(path)!r}: {count}")
    if count < expected - 1:  # OpenCV rounds what it estimates
        raise UserError(f"--video-input is cut short: it has {count} of {expected} frames.")


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


def draw(image: np.ndarray, output: Mapping[str, object], metadata: Metadata) -> np.ndarray:
    """Draw the output of a Detectron2 model into a copy of its image (H, W, 3) uint8, BGR."""
    visualizer = Visualizer(image[:, :, ::-1], metadata)
    if "panoptic_seg" in output:  # it holds the other two
        segmentation, segments = output["panoptic_seg"]
        visualizer.draw_panoptic_seg_predictions(segmentation.cpu(), segments)
    else:
        if "sem_seg" in output:
            visualizer.draw_sem_seg(output["sem_seg"].argmax(dim=0).cpu())
        if "instances" in output:
            visualizer.draw_instance_predictions(output["instances"].to("cpu"))
    return visualizer.output.get_image()[:, :, ::-1]


def draw_frames(predictor: Predictor, capture: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Draw what is detected into the frames of a video or a camera, (H, W, 3) uint8, BGR, until it has no
    more; an object keeps its colour.
    """
    visualizer = VideoVisualizer(predictor.metadata)
    while True:
        has_frame, frame = capture.read()
        if not has_frame:
            return
        output, picture = predictor(frame), frame[:, :, ::-1]
        if "panoptic_seg" in output:
            segmentation, segments = output["panoptic_seg"]
            drawn = visualizer.draw_panoptic_seg_predictions(picture, segmentation.cpu(), segments)
        elif "instances" in output:
            drawn = visualizer.draw_instance_predictions(picture, output["instances"].to("cpu"))
        else:
            drawn = visualizer.draw_sem_seg(picture, output["sem_seg"].argmax(dim=0).cpu())
        yield np.ascontiguousarray(drawn.get_image()[:, :, ::-1])


if __name__ == "__main__":
    main()
