"""Count parameters, multiply-adds and activations of a config by stage, and by how much its non-local blocks
exceed its baseline. Of several configs, or of all in a folder, a line each:

    python tools/analyze.py --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml
    python tools/analyze.py --config-file configs/Ablations --format markdown --output ablations.md

Counted is one image in inference, padded as the model needs: all parameters, the frozen ones too; the
multiply-adds of convolutions, linear layers and matrix products; as activations the values that these put
out. How many regions the heads see is given, and not what some weights would detect. Only shapes are
computed, which takes a second for most models, and no memory.
"""

import argparse
from pathlib import Path

from .arguments import tool_parser

FORMATS = {"text": "simple", "markdown": "github", "csv": ""}  # the first two as tabulate calls them
SIZES = {  # the default, and what it is
    "height": (800, "of the image in pixels"),
    "width": (1333, "of the image in pixels"),
    "proposals": (1000, "that the box head sees"),
    "detections": (100, "that the mask and keypoint heads see"),
}


def main() -> None:
    args = _parser().parse_args()
    from nl_detectron_cli.counting import run  # after parsing: see __init__

    run(args)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__, several_configs=True)
    for name, (default, text) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the terminal")
    return parser
