"""What tools/demo.py does after parsing its command line."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path

import cv2
import nl_detectron_shapes  # noqa: F401  (registers shapes_val and the like, whose classes have names)
import numpy as np
from detectron2.config import CfgNode
from tqdm import tqdm

from nl_detectron.config import check_non_local_keys
from nl_detectron.engine import read_config, set_confidence_threshold
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.inspect import find_images, read_images, sort_by_size, use_images
from nl_detectron.predictor import Predictor

from .ids import name_categories, name_images, number_images
from .pictures import output_paths, write_picture
from .predictions import Predictions, check_json, describe
from .videos import (
    COUNTED,
    check_frames,
    count_frames,
    draw_frames,
    open_camera,
    open_video,
    read_frames,
    show,
    video_path,
    write_video,
)

# Of what --json holds; PanopticFPN has another one for its pictures.
SCORES = {"MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.RETINANET.SCORE_THRESH_TEST"}
Output = Mapping[str, object]


def run(args: argparse.Namespace) -> None:
    """Run a command line of tools/demo.py."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # keeps OpenCV's own lines off the terminal
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    with one_line_errors():
        cfg, given = read_config(args)
        check_non_local_keys(cfg, given)
        set_confidence_threshold(cfg, args.confidence_threshold, {*given, *SCORES} if args.json else given)
        check_flags(cfg, args)
        least = args.confidence_threshold if args.json and not SCORES & given else 0.0
        if args.input is not None:
            detect_in_images(cfg, args, least)
        elif args.video_input:
            detect_in_video(cfg, args, least)
        else:
            capture = open_camera()
            predictor = load(cfg, args)
            show(draw_frames(predictor.in_batches(read_frames(capture)), predictor.metadata, args.scale))


def check_flags(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Reject flags that contradict each other or the model."""
    kind = cfg.MODEL.META_ARCHITECTURE
    if kind == "ProposalNetwork":
        raise UserError("MODEL.META_ARCHITECTURE ProposalNetwork gives proposals, which are not drawn.")
    if args.webcam and (args.output or args.json):
        raise UserError(f"Leave out {'--output' if args.output else '--json'} with --webcam.")
    if not (args.webcam or args.output or args.json):
        raise UserError("Give an --output or a --json.")
    if args.json and kind == "SemanticSegmentor":
        raise UserError(f"MODEL.META_ARCHITECTURE {kind} detects no objects for --json. Give an --output.")
    if args.json_ids and not args.json:
        raise UserError("--json-ids is for --json. Give that, too.")
    if args.batch < 1:
        raise UserError(f"--batch must be at least 1; got {args.batch}.")
    if args.scale is not None and not 0.05 <= args.scale <= 20:
        raise UserError(f"--scale must be from 0.05 to 20; got {args.scale:g}.")
    if args.json:
        check_json(args.json)


def load(cfg: CfgNode, args: argparse.Namespace) -> Predictor:
    predictor = Predictor(cfg, args.allow_mismatch)
    print(predictor.report)
    return predictor


def detect_in_images(cfg: CfgNode, args: argparse.Namespace, least: float) -> None:
    """Draw what is detected in each image into a file of its own, or write it as JSON."""
    images = find_images(args.input)  # before the model is built, which takes a while
    pictures = output_paths(images, args.output) if args.output else {}
    folder, names = name_images(images)
    images = sort_by_size(images) if args.batch > 1 else images
    ids = number_images(names, args.json_ids) if args.json else {}
    predictor, written = load(cfg, args), []

    def read(paths: Sequence[Path]) -> Iterator[tuple[np.ndarray, Output] | UserError]:
        return predictor.in_batches(read_images(paths), args.batch)

    def use(image: Path, found: tuple[np.ndarray, Output]) -> None:
        pixels, output = found
        if predictions:
            predictions.add(names[image], ids[names[image]], pixels, output)
        if pictures:
            shown, metadata = above(least, output), predictor.metadata
            write_picture(pictures[image], image, pixels, shown, metadata, args.scale)
            written.append(image)

    with open_predictions(predictor, args, folder, least, ids) as predictions:
        done = predictions.done if predictions else {}
        try:
            use_images([image for image in images if names[image] not in done], use, read)
        finally:
            if pictures:
                print(f"images written: {len(written)}")


def detect_in_video(cfg: CfgNode, args: argparse.Namespace, least: float) -> None:
    """Draw what is detected in a video into another one, or write it as JSON."""
    capture = open_video(args.video_input)
    path = video_path(args.video_input, args.output) if args.output else None
    predictor, expected = load(cfg, args), count_frames(capture)

    def detect() -> Iterator[tuple[np.ndarray, Output]]:
        frames = islice(read_frames(capture), start, None)
        for k, (frame, output) in enumerate(predictor.in_batches(frames, args.batch), start):
            if predictions:
                predictions.add(f"{args.video_input.name}#{k}", k, frame, output)
            yield frame, above(least, output)

    with open_predictions(predictor, args, args.video_input, least) as predictions:
        start = len(predictions.done) if predictions else 0
        doing = "drawing" if path else "detecting"
        found = tqdm(detect(), desc=doing, unit="frame", total=expected or None, initial=start, disable=None)
        if path:
            count = write_video(draw_frames(found, predictor.metadata, args.scale), capture, path)
        else:
            count = start + sum(1 for _ in found)
        check_frames(count, expected, args.video_input.suffix.lower() in COUNTED)


def open_predictions(
    predictor: Predictor,
    args: argparse.Namespace,
    source: str | Path,
    least: float,
    ids: Mapping[str, int] | None = None,
) -> AbstractContextManager[Predictions | None]:
    """What --json writes; None without it."""
    if not args.json:
        return nullcontext()
    categories = name_categories(predictor.cfg, predictor.metadata, args.json_ids)
    made_from = describe(predictor.cfg, source, args.output, least)
    resumes = not (args.video_input and args.output)
    return Predictions(args.json, categories, made_from, ids, args.batch, resumes)


def above(least: float, output: Output) -> Output:
    """The output with the instances of a higher score only."""
    if not least or "instances" not in output:
        return output
    instances = output["instances"]
    return {**output, "instances": instances[instances.scores > least]}
