#!/usr/bin/env python
"""From nothing to what a non-local block is for, in minutes on two CPU cores.

    python projects/far_context/demo.py --output output/demo

Trains a narrow Mask R-CNN on near pictures, and from its weights two models on near and far ones, without and
with a block, side by side; and a Keypoint R-CNN with four blocks in its head on the drawn shapes. Reports AP,
and draws what the two say of the same pictures. Called again, it continues where it stopped.
"""

import argparse
import os
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from detectron2.data import DatasetCatalog
from far_context.comparison import draw_comparison
from far_context.evaluation import Evaluation, dataset_of, evaluate, predictor_of
from far_context.folder import Experiment, set_up
from far_context.matrix import BASELINE, MAIN_PAIR, Arm, Training
from far_context.pictures import register_pictures
from far_context.runs import run_all
from nl_detectron_shapes import write_shapes
from tabulate import tabulate

from nl_detectron.engine import Run, program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]
# Strips instead of squares, lighter heads and fewer steps than in the experiment.
KEYS = (
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MIN_SIZE_TEST", "64"),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", "128", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "60", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "30"),
    *("SOLVER.CHECKPOINT_PERIOD", "100", "TEST.EVAL_PERIOD", "0"),
)
# From the near pictures a model learns what the disc means. Then it sees both, without and with a block.
NEAR = Arm(
    "mask/near",
    "the near pictures",
    BASELINE.config,
    (
        *("DATASETS.TRAIN", "('shapes_near_train',)", "DATASETS.TEST", "('shapes_near_val',)"),
        *("SOLVER.MAX_ITER", "300", "SOLVER.STEPS", "()"),
    ),
)
_SCHEDULE = ("SOLVER.MAX_ITER", "400", "SOLVER.STEPS", "(330,)")
PAIR = [replace(arm, keys=_SCHEDULE, start=NEAR) for arm in MAIN_PAIR]
_KEYPOINT_CONFIG = ROOT / "configs/quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
KEYPOINT = Arm("keypoint/shapes", "4 blocks in the head", str(_KEYPOINT_CONFIG))
KEYPOINT_KEYS = (
    *("MODEL.RESNETS.DEPTH", "50", "MODEL.RESNETS.STEM_OUT_CHANNELS", "32"),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", "16", "TEST.LOSS_IMAGES", "0"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16", "MODEL.ROI_HEADS.POSITIVE_FRACTION", "0.5"),
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", "60", "MODEL.RPN.POST_NMS_TOPK_TRAIN", "30"),
)
COLUMNS = {"box AP": "bbox/AP", "mask AP": "segm/AP", "keypoint AP": "keypoints/AP"}


def main() -> None:
    args = _parser().parse_args()
    start = time.monotonic()
    with one_line_errors():
        if args.seed < 0:  # with which a training would draw one
            raise UserError(f"--seed must be at least 0; got {args.seed}.")
        *pair, keypoint = train(args)
        print("Looking at what the models detect.")
        seen = [evaluate(run) for run in pair]
        picture = args.output / "far.jpg"
        pictures = DatasetCatalog.get(dataset_of(pair[0], "far"))[:2]
        figure = draw_comparison(pictures, *(predictor_of(run) for run in pair))
        with atomic_write(picture) as unfinished:
            figure.savefig(unfinished, dpi=100, format="jpg")
    print("\n" + table(pair, seen, keypoint))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"\n{args.val} held-out pictures of each kind; {(time.monotonic() - start) / 60:.1f} min on {device}."
    )
    print(f"What both models say of the same far pictures: {picture}\n")
    print("Next:\n" + next_commands(args.output, pair[1].folder))


def _parser() -> argparse.ArgumentParser:
    parser = program_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), metavar="FOLDER")
    parser.add_argument("--train", type=int, default=800, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    text = "config keys for all models, and their values"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=text)
    return parser


def train(args: argparse.Namespace) -> list[Run]:
    """Train the baseline and the model with a block at the same time, each in a process of its own, from the
    weights of one model; then the keypoint model. What is trained already is skipped.
    """
    far = Experiment(args.output.resolve(), args.train, args.val, (*KEYS, *args.opts), layout="strip")
    shapes = replace(far, keys=(*KEYPOINT_KEYS, *args.opts))
    near, keypoint = Training(NEAR, args.seed), Training(KEYPOINT, args.seed)
    pair = [Training(arm, args.seed) for arm in PAIR]
    with set_up(far) as lock:
        print("1 of 3: Mask R-CNN on near pictures, from scratch")
        run_all(far, [near], jobs=1, lock=lock)
        print("2 of 3: the same model on near and far pictures, without and with a block")
        run_all(far, pair, jobs=2, lock=lock)
        print("3 of 3: Keypoint R-CNN on the shapes, from scratch, with four blocks in its head")
        write_shapes(far.datasets / "shapes", train=args.train, val=args.val)
        run_all(shapes, [keypoint], jobs=1, lock=lock)
    register_pictures(far.datasets)
    return [*(far.finished(training) for training in pair), shapes.finished(keypoint)]


def table(pair: list[Run], seen: list[Evaluation], keypoint: Run) -> str:
    """AP, and for the far pictures the share of figures whose category is right."""
    rows = []
    for mode in ("far", "near"):
        for name, run, evaluation in zip(("no block", "1 block in res4"), pair, seen, strict=True):
            last = run.history[run.cfg.SOLVER.MAX_ITER]
            scores = [last.get(f"{dataset_of(run, mode)}/{key}") for key in COLUMNS.values()]
            right = f"{evaluation.right_share():.0f} %" if mode == "far" else None
            rows.append([f"Mask R-CNN, {name}", f"disc {mode}", *scores, right])
    last = keypoint.history[keypoint.cfg.SOLVER.MAX_ITER]
    scores = [last.get(key) for key in COLUMNS.values()]
    rows.append(["Keypoint R-CNN, 4 blocks in the head", "shapes", *scores, None])
    header = ["model", "pictures", *COLUMNS, "category right"]
    return tabulate(rows, header, tablefmt="github", floatfmt=".1f", missingval="-")


def next_commands(output: Path, model: Path) -> str:
    """What to do with the model with a block, as one types it in this folder."""
    here = Path.cwd()

    def short(path: Path) -> str:
        path = Path(os.path.abspath(path))  # not resolved: the interpreter of an environment is a link
        return str(path.relative_to(here) if path.is_relative_to(here) else path)

    python, far = short(Path(sys.executable)), output / "datasets" / "shapes_far" / "val"
    trained = ["--config-file", short(model / "config.yaml")]
    weights = ["MODEL.WEIGHTS", short(model / "model_final.pth")]
    image = short(far / "000000000000.jpg")
    commands = {
        "What the block attends to, in a page for a browser": [
            *(short(ROOT / "tools/visualize_attention.py"), *trained, "--input", image),
            *("--output", short(output / "attention"), *weights),
        ],
        "What the model detects in all far pictures": [
            *(short(ROOT / "tools/demo.py"), *trained, "--input", short(far)),
            *("--output", short(output / "detected"), *weights),
        ],
        "What the block costs": [short(ROOT / "tools/analyze.py"), *trained],
    }
    return "\n".join(f"  # {what}\n  {shlex.join([python, *words])}" for what, words in commands.items())


if __name__ == "__main__":
    main()
