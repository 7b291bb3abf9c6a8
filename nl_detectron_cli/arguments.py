"""Flags of train_net.py and of the tools. The standard library is all that is imported here: see __init__."""

import argparse
import os
import sys
from pathlib import Path

EPILOG = """
Examples (CONFIG is a YAML file, or the name of a shipped one):
    $ train_net.py --config-file CONFIG --dry-run
    $ train_net.py --config-file CONFIG --dry-run --draw-training 8
    $ train_net.py --config-file CONFIG --num-gpus 8
    $ train_net.py --config-file CONFIG --auto-scale SOLVER.MAX_ITER 1000
    $ train_net.py --config-file CONFIG --resume
    $ train_net.py --eval-only --config-file CONFIG MODEL.WEIGHTS output/model_final.pth
    $ train_net.py --config-file CONFIG --register-coco birds train.json images DATASETS.TRAIN "('birds',)"
    $ torchrun --nproc-per-node 8 train_net.py --config-file CONFIG
"""

TOOLS = ("demo", "export", "analyze", "results")
AS_COMMANDS = {  # what replaces the scripts in texts of nl-detectron, the longest first
    "torchrun --nproc-per-node 8 train_net.py": "torchrun --nproc-per-node 8 --no-python nl-detectron train",
    "train_net.py --eval-only": "nl-detectron eval",
    "train_net.py": "nl-detectron train",
    "python tools/visualize_attention.py": "nl-detectron attention",
    "python datasets/generate_shapes.py": "python -m nl_detectron_shapes",
    **{f"python tools/{name}.py": f"nl-detectron {name}" for name in TOOLS},
}


def as_typed(text: str) -> str:
    """A text with its examples in the form that the user typed: scripts, or commands of nl-detectron."""
    if os.path.basename(sys.argv[0]).startswith("nl-detectron "):  # set by nl_detectron_cli.command
        for script, command in AS_COMMANDS.items():
            text = text.replace(script, command)
    return text


def detectron2_parser(epilog: str) -> argparse.ArgumentParser:
    """The flags of Detectron2's default_argument_parser, whose import takes seconds."""
    parser = argparse.ArgumentParser(epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "a config, or the name of a shipped one"
    parser.add_argument("--config-file", default="", metavar="FILE", help=text)
    text = "go on from the last checkpoint in OUTPUT_DIR; with --eval-only: evaluate it"
    parser.add_argument("--resume", action="store_true", help=text)
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS, without training")
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="GPUs of each machine")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="how many machines train")
    text = "the number of this machine, from 0"
    parser.add_argument("--machine-rank", type=int, default=0, metavar="K", help=text)
    user = hash(os.getuid()) if sys.platform != "win32" else 1
    address = f"tcp://127.0.0.1:{2**15 + 2**14 + user % 2**14}"  # one port for each user, as in Detectron2
    text = "where the processes find each other (default: %(default)s)"
    parser.add_argument("--dist-url", default=address, metavar="URL", help=text)
    text = "keys of the config and their values: SOLVER.BASE_LR 0.001"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=text)
    return parser


def train_net_parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and ours."""
    parser = detectron2_parser(as_typed(EPILOG))
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
    parser = program_parser(description)
    action = "append" if several_configs else "store"
    text = "a config, or the name of a shipped one" + ("; may be repeated" if several_configs else "")
    parser.add_argument("--config-file", metavar="FILE", action=action, help=text)
    add_register_coco(parser)
    pairs = {"dest": "opts", "action": "extend", "nargs": argparse.REMAINDER, "default": []}
    parser.add_argument("--opts", help="goes before the keys in Detectron2's demo; may be left out", **pairs)
    text = "keys of the config and their values: MODEL.WEIGHTS model.pth"
    parser.add_argument(metavar="KEY VALUE", help=text, **pairs)
    return parser


def program_parser(description: str) -> argparse.ArgumentParser:
    """A parser that refuses an empty path, and shows the examples of the description as they are typed."""
    parser = argparse.ArgumentParser(
        description=as_typed(description), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, output_path)  # for every flag that is a Path
    return parser


def output_path(text: str) -> Path:
    """The type of a flag that is a path; Path would make the current folder of an empty one."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty. Is a shell variable unset?")
    return Path(text)


def add_register_coco(parser: argparse.ArgumentParser) -> None:
    """Give a command line the flag; `nl_detectron.data.register_from` reads it."""
    text = "a data set of yours in COCO's format, for DATASETS.TRAIN and DATASETS.TEST; may be repeated"
    names = {"nargs": 3, "metavar": ("NAME", "JSON", "IMAGE_DIR")}
    parser.add_argument("--register-coco", action="append", default=[], help=text, **names)


def add_detection_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a tool that shows what a trained model detects."""
    text = "the lowest score that is shown (default: %(default)s); keys on the command line take precedence"
    parser.add_argument("--confidence-threshold", type=float, default=0.5, metavar="SCORE", help=text)
    text = "accept weights that lack tensors of the model"
    parser.add_argument("--allow-mismatch", action="store_true", help=text)
