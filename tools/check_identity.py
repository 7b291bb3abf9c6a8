#!/usr/bin/env python
"""Show that new non-local blocks change nothing: a config's model and its baseline, with the same checkpoint
of the baseline, give the same outputs for real images, bit for bit.

    python tools/check_identity.py --config-file CONFIG --images 4 MODEL.WEIGHTS baseline.pth

The images are the first ones of DATASETS.TEST, or those of --input. A line for each says what is compared and
how far it differs; the exit code is 0 only if nothing does.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from nl_detectron.config import baseline_of
from nl_detectron.engine import read_config, tool_parser
from nl_detectron.engine.preflight import check_dataset, read_dataset
from nl_detectron.errors import UserError, one_line_errors, reported_as_user_errors
from nl_detectron.images import find_images
from nl_detectron.load_report import LoadReport
from nl_detectron.predictor import load_weights

SEED = 0  # of what the checkpoint does not hold, with --allow-mismatch


def build_pair(cfg: CfgNode, allow_mismatch: bool) -> tuple[nn.Module, nn.Module]:
    """The model of a config and its baseline, both with MODEL.WEIGHTS, which has to be the baseline's.

    Raises:
        UserError: if there is no block to check, or the checkpoint is not one of the baseline.
    """
    model, report = _load(cfg, allow_mismatch=True)
    print(report)
    if not hasattr(model, "preprocess_image") or not hasattr(model, "backbone"):
        rule = "an architecture that detects, as GeneralizedRCNN, RetinaNet and PanopticFPN"
        raise UserError(f"MODEL.META_ARCHITECTURE must be {rule}; got {cfg.MODEL.META_ARCHITECTURE!r}.")
    if not report.all_blocks:
        raise UserError("--config-file must place non-local blocks; this one places none.")
    if report.has_blocks:
        raise UserError(f"MODEL.WEIGHTS must be of a baseline; got {cfg.MODEL.WEIGHTS!r}, which has blocks.")
    baseline, _ = _load(baseline_of(cfg), allow_mismatch)
    return model, baseline


def _load(cfg: CfgNode, allow_mismatch: bool) -> tuple[nn.Module, LoadReport]:
    torch.manual_seed(SEED)
    with reported_as_user_errors("Detectron2 cannot build this model"):
        model = build_model(cfg).eval()
    return model, load_weights(model, cfg.MODEL.WEIGHTS, allow_mismatch)


def compare(model: nn.Module, baseline: nn.Module, image: dict[str, object]) -> dict[str, str]:
    """What both models make of an image: "same", or by how much it differs at most.

    Args:
        image: as Detectron2's models take it.
    """
    ours, theirs = dict(_outputs(model, image)), dict(_outputs(baseline, image))
    row = {"detections": str(len(theirs["scores"]) if "scores" in theirs else "-")}
    for name in theirs | ours:
        row[name] = _difference(ours.get(name), theirs.get(name))
    return row


@torch.no_grad()
def _outputs(model: nn.Module, image: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    """The features of the backbone, and all that the model gives, each with a name."""
    features = model.backbone(model.preprocess_image([image]).tensor)
    yield from features.items()
    (output,) = model([image])
    instances = output.pop("instances", None)
    for name, value in (instances.get_fields() if instances is not None else {}).items():
        yield name, value.tensor if isinstance(value, Boxes) else value
    if "panoptic_seg" in output:
        output["panoptic_seg"], segments = output["panoptic_seg"]
        yield "segments", torch.tensor([float(value) for segment in segments for value in segment.values()])
    yield from output.items()


def _difference(ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return "another number"
    if ours.equal(theirs):
        return "same"
    return f"{(ours.double() - theirs.double()).abs().max().item():.3g}"


def _images(cfg: CfgNode, files: list[str], count: int) -> list[dict[str, object]]:
    if files:
        return [{"file_name": str(file)} for file in find_images(files)]
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST must name a data set, or --input an image; got neither.")
    name = cfg.DATASETS.TEST[0]
    check_dataset("DATASETS.TEST", name)
    keep = ("file_name", "height", "width", "image_id")
    images = read_dataset("DATASETS.TEST", name)[:count]
    return [{key: image[key] for key in keep if key in image} for image in images]


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument(
        "--images", type=int, default=4, help="how many of DATASETS.TEST (default: %(default)s)"
    )
    parser.add_argument("--input", nargs="+", default=[], metavar="FILES", help="images, folders, patterns")
    parser.add_argument(
        "--allow-mismatch",
        action="store_true",
        help="weights that lack tensors of the baseline, e.g. ImageNet's",
    )
    args = parser.parse_args()
    with one_line_errors():
        cfg, _ = read_config(args)
        if not cfg.MODEL.WEIGHTS:
            raise UserError("MODEL.WEIGHTS must be a checkpoint of the baseline; got none.")
        if args.images < 1:
            raise UserError(f"--images must be at least 1; got {args.images}.")
        images = _images(cfg, args.input, args.images)
        model, baseline = build_pair(cfg, args.allow_mismatch)
        mapper = DatasetMapper(cfg, is_train=False)
        rows = []
        for image in tqdm(images, desc="comparing", unit="image"):
            with reported_as_user_errors(f"{image['file_name']} cannot be read"):
                inputs = mapper(image)
            rows.append({"image": Path(image["file_name"]).name, **compare(model, baseline, inputs)})
    print(tabulate(rows, headers="keys", tablefmt="github"))
    sys.exit(verdict(rows))


def verdict(rows: list[dict[str, str]]) -> int:
    """Say what the comparison showed; the exit code."""
    differing = [row["image"] for row in rows if {*row.values()} - {row["image"], row["detections"], "same"}]
    detections = sum(int(row["detections"]) for row in rows if row["detections"] != "-")
    if differing:
        print(f"NOT identical: {', '.join(differing)}.")
    elif not detections and any(row["detections"] != "-" for row in rows):
        print("NOT shown: there is no detection to compare. Lower the model's SCORE_THRESH_TEST.")
    else:
        print(f"Identical, bit for bit: {len(rows)} images, {detections} detections.")
        return 0
    return 1


if __name__ == "__main__":
    main()
