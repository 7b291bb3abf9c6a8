#!/usr/bin/env python
"""Show that new non-local blocks change nothing: a config's model and its baseline, with the same checkpoint
of the baseline, give the same outputs for real images, bit for bit.

    python tools/check_identity.py --config-file CONFIG --images 4 MODEL.WEIGHTS baseline.pth

The images are the first ones of DATASETS.TEST, or those of --input. A line for each says what is compared and
how far it differs; the exit code is 0 only if nothing does.
"""

import sys
from pathlib import Path

import nl_detectron_shapes  # noqa: F401  (registers shapes_val and the like, which DATASETS.TEST may name)
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from tabulate import tabulate
from torch import Tensor

from nl_detectron.config import baseline_of
from nl_detectron.engine import read_config, read_dataset, tool_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.inspect import find_images, use_images
from nl_detectron.predictor import Predictor


def main() -> None:
    parser = tool_parser(__doc__)
    text = "how many of DATASETS.TEST (default: %(default)s)"
    parser.add_argument("--images", type=int, default=4, help=text)
    parser.add_argument("--input", nargs="+", default=[], metavar="FILES", help="images, folders, patterns")
    text = "accept weights that lack tensors of the baseline, e.g. ImageNet's"
    parser.add_argument("--allow-mismatch", action="store_true", help=text)
    args = parser.parse_args()
    rows: list[dict[str, str]] = []
    with one_line_errors():
        cfg, _ = read_config(args)
        images = find_images(args.input) if args.input else dataset_images(cfg, args.images)
        model, baseline = build_pair(cfg, args.allow_mismatch)
        try:
            use_images(images, lambda path, image: rows.append(compare(model, baseline, path, image)))
        finally:
            print(tabulate(rows, headers="keys", tablefmt="github"))
    sys.exit(verdict(rows))


def dataset_images(cfg: CfgNode, count: int) -> list[Path]:
    """The first images of DATASETS.TEST."""
    if not cfg.DATASETS.TEST or count < 1:
        raise UserError("There are no images to compare. Give --input, or DATASETS.TEST and --images.")
    name = cfg.DATASETS.TEST[0]
    return [Path(record["file_name"]) for record in read_dataset("DATASETS.TEST", name)[:count]]


def build_pair(cfg: CfgNode, allow_mismatch: bool) -> tuple[Predictor, Predictor]:
    """The model of a config and its baseline, both with MODEL.WEIGHTS, which has to be the baseline's.

    Raises:
        UserError: if there is no block to check, or the checkpoint is not one of the baseline.
    """
    torch.manual_seed(0)  # of what the checkpoint lacks
    model = Predictor(cfg, allow_mismatch=True)
    print(model.report)
    if not model.report.all_blocks:
        raise UserError("The config places no non-local blocks. Use one with nl in its name.")
    if model.report.has_blocks:
        raise UserError(f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} has blocks. Give a checkpoint of the baseline.")
    torch.manual_seed(0)
    return model, Predictor(baseline_of(cfg), allow_mismatch)


def compare(model: Predictor, baseline: Predictor, path: Path, image: np.ndarray) -> dict[str, str]:
    """For each output of either model: "same", or by how much the two differ at most."""
    ours, theirs = outputs(model, image), outputs(baseline, image)
    row = {"image": path.name, "detections": str(len(theirs["scores"]) if "scores" in theirs else "-")}
    return row | {name: difference(ours.get(name), theirs.get(name)) for name in theirs | ours}


def outputs(predictor: Predictor, image: np.ndarray) -> dict[str, Tensor]:
    """The features of the backbone, and all that the model gives, each with a name."""
    found: dict[str, Tensor] = {}
    hook = predictor.model.backbone.register_forward_hook(lambda *args: found.update(args[2]))
    output = predictor(image)
    hook.remove()
    if "panoptic_seg" in output:
        output["panoptic_seg"], segments = output["panoptic_seg"]
        values = [float(value) for segment in segments for value in segment.values()]
        output["segments"] = torch.tensor(values)
    for name, value in output.items():
        found |= value.get_fields() if isinstance(value, Instances) else {name: value}
    return {name: value.tensor if isinstance(value, Boxes) else value for name, value in found.items()}


def difference(ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return "another number"
    if ours.equal(theirs):
        return "same"
    return f"{(ours.double() - theirs.double()).abs().max().item():.3g}"


def verdict(rows: list[dict[str, str]]) -> int:
    """Say what the comparison showed; the exit code."""
    differing = []
    for row in rows:
        _, _, *compared = row.values()
        if set(compared) != {"same"}:
            differing.append(row["image"])
    counts = [int(row["detections"]) for row in rows if row["detections"] != "-"]
    if differing:
        print(f"NOT identical: {', '.join(differing)}.")
    elif counts and not any(counts):
        print("NOT shown: there is no detection to compare. Lower the model's SCORE_THRESH_TEST.")
    else:
        print(f"Identical, bit for bit: {len(rows)} images, {sum(counts)} detections.")
        return 0
    return 1


if __name__ == "__main__":
    main()
