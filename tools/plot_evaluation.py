#!/usr/bin/env python
"""Precision-recall curves and a confusion matrix of the detections that an evaluation has saved.

    python tools/plot_evaluation.py --input output/nl_1 --output output/plots
    python tools/plot_evaluation.py --input results.json --dataset coco_2017_val --output output/plots

--input takes an output folder of train_net.py, or a file like its inference/coco_instances_results.json, of
which --dataset tells the data set. curves.png has the curves behind COCO's AP of boxes, masks and keypoints:
their mean, and those of the categories with the most objects. confusion.png counts which categories of boxes
are taken for which. Crowds are not counted, nor detections in a crowd of their category.
"""

import contextlib
import io
import json
from pathlib import Path

import nl_detectron_shapes  # noqa: F401  (registers shapes_val and the like, which --dataset may name)
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from evaluation_plots.figures import plot_confusion, plot_curves
from evaluation_plots.measures import TASKS, Detections, count_confusions, precision_of
from pycocotools.coco import COCO

from nl_detectron.data import add_register_coco, register_from
from nl_detectron.engine import program_parser, read_dataset
from nl_detectron.errors import UserError, one_line_errors

RESULTS = "coco_instances_results.json"


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("--input", type=Path, required=True, metavar="PATH", help="a training, or a file")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the plots")
    parser.add_argument("--dataset", metavar="NAME", help="by default, the one the training was tested on")
    text = "the lowest score that confusion.png counts (default: %(default)s)"
    parser.add_argument("--confidence-threshold", type=float, default=0.5, metavar="SCORE", help=text)
    text = "the lowest IoU of a match in confusion.png (default: %(default)s)"
    parser.add_argument("--iou-threshold", type=float, default=0.5, metavar="IOU", help=text)
    add_register_coco(parser)
    args = parser.parse_args()
    with one_line_errors():
        if not 0 < args.iou_threshold <= 1:
            raise UserError(f"--iou-threshold must be above 0 and at most 1; got {args.iou_threshold:g}.")
        register_from(args)
        file, name, sigmas = find_results(args.input, args.dataset)
        truth = read_truth(name)
        detections = read_detections(file, truth, name)
        sigmas = sigmas or MetadataCatalog.get(name).get("keypoint_oks_sigmas", ())
        precisions = {
            task: precision_of(truth, detections, task, sigmas)
            for task, key in TASKS.items()
            if key in detections[0] and any(key in each for each in truth.anns.values())
        }
        counts = count_confusions(truth, detections, args.confidence_threshold, args.iou_threshold)
        categories = {truth.cats[k]["name"]: len(truth.getAnnIds(catIds=k)) for k in sorted(truth.cats)}
        args.output.mkdir(parents=True, exist_ok=True)
        plot_curves(precisions, categories).savefig(args.output / "curves.png", dpi=150)
        title = f"score ≥ {args.confidence_threshold:g}, IoU ≥ {args.iou_threshold:g}"
        plot_confusion(counts, [*categories], title).savefig(args.output / "confusion.png", dpi=150)


def find_results(source: Path, name: str | None) -> tuple[Path, str, list[float]]:
    """The file of detections, the name of their data set, and the sigmas of keypoints that a config sets.

    Raises:
        UserError: if there is no such file, or several data sets or none are named.
    """
    if not source.is_dir():
        if not name:
            raise UserError(f"{source} does not say which data set it is of. Add --dataset NAME.")
        return source, name, []
    try:  # the config of the last training or evaluation there
        cfg = CfgNode(yaml.safe_load((source / "config.yaml").read_text()))
        names, sigmas = cfg.DATASETS.TEST, cfg.TEST.KEYPOINT_OKS_SIGMAS
    except (FileNotFoundError, yaml.YAMLError, AttributeError, AssertionError):
        text = "it has no config.yaml, or that of a LazyConfig"
        raise UserError(f"{source} is not an output folder of train_net.py: {text}.") from None
    if (name or len(names) != 1) and name not in names:
        raise UserError(f"{source} was tested on {', '.join(names) or 'nothing'}. Choose one with --dataset.")
    name = name or names[0]
    file = source / "inference" / (name if len(names) > 1 else "") / RESULTS
    if not file.is_file():
        raise UserError(
            f"{source} has no {file.relative_to(source)}. Evaluate it with train_net.py --eval-only."
        )
    return file, name, sigmas


def read_truth(name: str) -> COCO:
    """A registered data set; a UserError for one that is unknown, has no file, or no annotations."""
    read_dataset("--dataset", name)
    file = MetadataCatalog.get(name).get("json_file")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(file)
    if not truth.anns:
        raise UserError(f"--dataset {name} has no annotations in a file of COCO's format.")
    return truth


def read_detections(file: Path, truth: COCO, name: str) -> Detections:
    """A file of results; a UserError for one that is empty, in another format, or of another data set."""
    try:
        detections = json.loads(file.read_text())
        unknown = [
            each
            for each in detections
            if each["image_id"] not in truth.imgs or each["category_id"] not in truth.cats
        ]
        is_complete = all({"bbox", "score"} <= each.keys() for each in detections)
    except (ValueError, TypeError, KeyError, AttributeError):
        is_complete = False
    if not is_complete:
        raise UserError(f"{file} is not a file of detections in COCO's format of results.")
    if not detections:
        raise UserError(f"{file} has no detections, so there is nothing to plot. Train for longer.")
    if unknown:
        its = f"image {unknown[0]['image_id']!r} and category {unknown[0]['category_id']!r}"
        raise UserError(f"{file} is not of {name}, which lacks {its}. Name its data set with --dataset.")
    return detections


if __name__ == "__main__":
    main()
