"""Command lines: their flags, and the config that they name."""

import argparse
import difflib
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from nl_detectron import model_zoo
from nl_detectron.config import get_cfg
from nl_detectron.data import add_register_coco, register_from
from nl_detectron.device import usable_device
from nl_detectron.errors import UserError

from .config_loading import flat_pairs, merge_file, merge_options

QUICK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"  # trains in minutes on a CPU

THRESHOLDS = (
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "MODEL.RETINANET.SCORE_THRESH_TEST",
    "MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH",
)

EPILOG = """
Examples (CONFIG is a YAML file, or the name of a shipped one):
    $ train_net.py --config-file CONFIG --dry-run
    $ train_net.py --config-file CONFIG --dry-run --draw-training 8
    $ train_net.py --config-file CONFIG --num-gpus 8
    $ train_net.py --config-file CONFIG --auto-scale SOLVER.MAX_ITER 1000
    $ train_net.py --config-file CONFIG --resume
    $ train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS output/model_final.pth
    $ train_net.py --config-file CONFIG --register-coco birds train.json images DATASETS.TRAIN "('birds',)"
    $ torchrun --nproc-per-node 8 train_net.py --config-file CONFIG
"""


def train_net_parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and ours."""
    parser = default_argument_parser(EPILOG)
    flags = {
        "--dry-run": "print what a run checks before it starts, and exit",
        "--decode-all": "with --dry-run: decode all images, not only the first and the last of a data set",
        "--auto-scale": "scale batch, learning rate and schedule from 8 GPUs to the number of processes",
        "--overwrite": "delete the training that OUTPUT_DIR holds, and start a new one there",
        "--new-schedule": "let --resume go on with the learning rate and schedule of the config",
        "--allow-mismatch": "evaluate weights that lack tensors of the model or have others",
    }
    for flag, text in flags.items():
        parser.add_argument(flag, action="store_true", help=text)
    text = "skip up to N images that cannot be read, in each process; they are listed at the end"
    parser.add_argument("--skip-broken", type=int, default=0, metavar="N", help=text)
    text = "draw N training images as the model gets them, with objects, into OUTPUT_DIR/training_images"
    parser.add_argument("--draw-training", type=int, default=0, metavar="N", help=text)
    text = "how long a process waits for the others before it ends with an error (default: 30)"
    parser.add_argument("--timeout", type=float, default=30, metavar="MINUTES", help=text)
    add_register_coco(parser)
    return parser


def tool_parser(description: str, several_configs: bool = False) -> argparse.ArgumentParser:
    """The flags of a tool that takes a model: its config, a user's data sets, and keys of the config."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, output_path)  # for every flag of the tool that is a Path
    action = "append" if several_configs else "store"
    text = "a config, or the name of a shipped one" + ("; may be repeated" if several_configs else "")
    parser.add_argument("--config-file", metavar="FILE", action=action, help=text)
    add_register_coco(parser)
    pairs = {"dest": "opts", "action": "extend", "nargs": argparse.REMAINDER, "default": []}
    parser.add_argument("--opts", help="goes before the keys in Detectron2's demo; may be left out", **pairs)
    text = "keys of the config and their values: MODEL.WEIGHTS model.pth"
    parser.add_argument(metavar="KEY VALUE", help=text, **pairs)
    return parser


def output_path(text: str) -> Path:
    """The type of a flag that is a path; Path would make the current folder of an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty. Is a shell variable unset?")
    return Path(text)


def add_detection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a tool that shows what a trained model detects."""
    text = "the lowest score that is shown (default: %(default)s); keys on the command line take precedence"
    parser.add_argument("--confidence-threshold", type=float, default=0.5, metavar="SCORE", help=text)
    text = "accept weights that lack tensors of the model"
    parser.add_argument("--allow-mismatch", action="store_true", help=text)


def set_confidence_threshold(cfg: CfgNode, threshold: float, given: Collection[str]) -> None:
    """Set the keys of the lowest score that is detected, as Detectron2's demo does, except those `given`."""
    if not 0 <= threshold <= 1:
        raise UserError(f"--confidence-threshold must be from 0 to 1; got {threshold:g}.")
    for key in THRESHOLDS:
        if key not in given:
            cfg.merge_from_list([key, threshold])


def read_config(args: argparse.Namespace) -> tuple[CfgNode, set[str]]:
    """The config of a command line, and the keys given there or, of MODEL.NON_LOCAL, in the config file.

    Registers the data sets of --register-coco.
    Features that this machine lacks are disabled, with a note on stderr.
    """
    if not args.config_file:
        before = f" before {args.opts[0]!r}" if args.opts else ""
        raise UserError(f"Give a --config-file{before}, such as {QUICK}. All are in configs/.")
    args.config_file = find_config(args.config_file)
    cfg = get_cfg()
    _give_back_keys(args, cfg)
    given = _non_local_keys(merge_file(cfg, args.config_file))
    merge_options(cfg, args.opts)
    device = usable_device(cfg.MODEL.DEVICE)
    if device != cfg.MODEL.DEVICE:
        print("No GPU is available: running on the CPU.", file=sys.stderr)
        cfg.MODEL.DEVICE = device
    if cfg.MODEL.DEVICE == "cpu" and cfg.SOLVER.AMP.ENABLED:
        note = "Detectron2's mixed precision needs a GPU: using SOLVER.AMP.PRECISION bfloat16 instead."
        print(note, file=sys.stderr)
        cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = False, "bfloat16"
    register_from(args)
    return cfg, {*given, *args.opts[::2]}


def _give_back_keys(args: argparse.Namespace, cfg: CfgNode) -> None:
    """`--input` takes all words up to the next flag: give the config's keys among them back."""
    inputs, keys = getattr(args, "input", None), dict(flat_pairs(cfg))
    if isinstance(inputs, list):  # else it is a tool with one input, or none
        places = (k for k, word in enumerate(inputs) if word in keys and not os.path.exists(word))
        first = next(places, len(inputs))
        args.input, args.opts = inputs[:first], inputs[first:] + args.opts


def _non_local_keys(content: Mapping[str, object]) -> set[str]:
    """The keys of MODEL.NON_LOCAL in a config file and its bases; none for a run's dump, which has all."""
    given = content.get("MODEL", {}).get("NON_LOCAL", {})
    is_dump = set(given) == set(get_cfg().MODEL.NON_LOCAL)
    return set() if is_dump else {f"MODEL.NON_LOCAL.{key}" for key in given}


def find_config(name: str) -> str:
    """A config file by its path, or by its name relative to the shipped configs."""
    if not os.path.isfile(name):
        try:
            name = model_zoo.get_config_file(name.removeprefix("configs/"))
        except RuntimeError:
            what = f"--config-file {name!r} is neither a file nor a shipped config"
            raise UserError(f"{what}. {_suggestion(name)}") from None
    if name.endswith(".py"):
        remedy = "Give a YAML, or use Detectron2's own tools/lazyconfig_train_net.py: see docs/pipelines.md."
        raise UserError(f"--config-file {name!r} is a LazyConfig. {remedy}")
    return name


def _suggestion(name: str) -> str:
    """Shipped configs of this file name, whatever the folder, or of one like it."""
    by_name: dict[str, list[str]] = {}
    for config in model_zoo.shipped_configs():
        by_name.setdefault(os.path.basename(config), []).append(config)
    file = os.path.basename(name)
    near = [file] if file in by_name else difflib.get_close_matches(file, by_name, n=3, cutoff=0.8)
    configs = [config for each in near for config in by_name[each]][:3]
    return f"Did you mean {' or '.join(configs)}?" if configs else "Those are in configs/."
