#!/usr/bin/env python
"""Draw what a model detects into images, a video or what a camera sees: boxes, masks, keypoints, and panoptic
and semantic segmentations.

    python tools/demo.py --config-file CONFIG --input FOLDER 'more/*.png' --output RESULTS \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --video-input video.mp4 --output result.mp4 \\
        MODEL.WEIGHTS model_final.pth
    python tools/demo.py --config-file CONFIG --webcam MODEL.WEIGHTS model_final.pth

Results have the names of the images, in the folder --output, so that two images of the same name are refused;
the result of one image may be a file, as result.jpg. No image is overwritten; older results are. Images that
cannot be read are named and left out, and the exit code is 1 then. Classes are shown by the names that the
first data set of DATASETS.TEST has for them, or else by their numbers.
"""

import argparse
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from nl_detectron.config import check_placement_is_used
from nl_detectron.drawing import draw, draw_frames
from nl_detectron.engine import add_detection_flags, read_config, set_confidence_threshold, tool_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.images import find_images, output_paths, use_images, write_image
from nl_detectron.predictor import Predictor
from nl_detectron.video import SUFFIX, count_frames, open_video, read_frames, write_video

WINDOW = "detections: q or Esc ends it"
END_KEYS = (ord("q"), 27)


def main() -> None:
    args = _parser().parse_args()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # none of its own lines beside ours
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with one_line_errors():
        cfg, given = read_config(args)
        check_placement_is_used(cfg, given)
        check_architecture(cfg)
        set_confidence_threshold(cfg, args.confidence_threshold, given)
        if not args.webcam and not args.output:
            raise UserError("--output must be given: a folder, or a file for one image or a video; got none.")
        if args.webcam and args.output:
            raise UserError(f"--output must be left out with --webcam; got {str(args.output)!r}.")
        if args.webcam:
            run_on_webcam(cfg, args)
        elif args.video_input:
            run_on_video(cfg, args)
        else:
            run_on_images(cfg, args)


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


def check_architecture(cfg: CfgNode) -> None:
    """Refuse an RPN alone, whose proposals are not drawn."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    if architecture == "ProposalNetwork":
        rule = "an architecture that detects or segments, as GeneralizedRCNN, RetinaNet and PanopticFPN"
        raise UserError(f"MODEL.META_ARCHITECTURE must be {rule}; got {architecture!r}.")


def load(cfg: CfgNode, allow_mismatch: bool) -> Predictor:
    predictor = Predictor(cfg, allow_mismatch)
    print(predictor.report)
    return predictor


def run_on_images(cfg: CfgNode, args: argparse.Namespace) -> None:
    paths = output_paths(find_images(args.input), args.output)
    predictor = load(cfg, args.allow_mismatch)
    count = 0

    def draw_into(image: Path, pixels: np.ndarray) -> None:
        nonlocal count
        write_image(paths[image], draw(pixels, predictor(pixels), predictor.metadata))
        count += 1

    try:
        use_images([*paths], draw_into)
    finally:
        if count:
            print(f"written: {count} image{'s' * (count > 1)} to {str(args.output)!r}")


def run_on_video(cfg: CfgNode, args: argparse.Namespace) -> None:
    capture = open_video(args.video_input)
    path = args.output
    if path.is_dir() or not path.suffix:
        path = path / args.video_input.with_suffix(SUFFIX).name
    if path.suffix != SUFFIX or os.path.realpath(path) == os.path.realpath(args.video_input):
        rule = f"a folder or another {SUFFIX} than --video-input"
        raise UserError(f"--output must be {rule}; got {str(path)!r}.")
    predictor = load(cfg, args.allow_mismatch)
    path.parent.mkdir(parents=True, exist_ok=True)
    expected = max(count_frames(capture), 0)
    frames = draw_frames(predictor, read_frames(capture))
    with tqdm(frames, desc="drawing", unit="frame", total=expected or None) as progress:
        count = write_video(path, progress, capture.get(cv2.CAP_PROP_FPS))
    print(f"written: {count} frame{'s' * (count > 1)} to {str(path)!r}")
    if count < expected - 1:  # OpenCV rounds what it estimates
        video = str(args.video_input)
        raise UserError(f"--video-input must be whole; {video!r} ends after {count} of {expected} frames.")


def run_on_webcam(cfg: CfgNode, args: argparse.Namespace) -> None:
    check_display()
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise UserError("--webcam must have a camera that OpenCV opens; there is none.")
    predictor = load(cfg, args.allow_mismatch)
    for frame in tqdm(draw_frames(predictor, read_frames(camera)), desc="drawing", unit="frame"):
        cv2.imshow(WINDOW, frame)
        if cv2.waitKey(1) in END_KEYS:
            break
    camera.release()
    cv2.destroyAllWindows()


def check_display() -> None:
    """Refuse a window where there can be none: OpenCV aborts the program then."""
    if sys.platform == "linux" and not os.environ.keys() & {"DISPLAY", "WAYLAND_DISPLAY"}:
        raise UserError("--webcam must have a display for its window; DISPLAY is not set. Use --video-input.")
    try:
        cv2.namedWindow(WINDOW, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise UserError(
            "--webcam must have an OpenCV with windows; this one is opencv-python-headless. "
            "Install opencv-python in its place."
        ) from None


if __name__ == "__main__":
    main()
