"""See what positions attend to: heat maps and the paper's Figure 3 arrows for chosen points or detections,
and a page in which every position can be pointed at.

    python tools/visualize_attention.py --config-file CONFIG --input photo.jpg --point 320,200 \\
        --output FOLDER MODEL.WEIGHTS model_final.pth

FOLDER gets photo.html, which opens in any browser, and a PNG for each block and point or detection. A table
says how far the maps of each block depend on the position at all, and a sentence what that means.
"""

import argparse
import re
import sys
from pathlib import Path

from .arguments import add_detection_flags, tool_parser


def main() -> None:
    args = _parser().parse_args()
    from nl_detectron_attention.command import run  # after parsing: see __init__

    run(args)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="images, folders of images, or globs")
    parser.add_argument("--output", type=Path, required=True, help="the folder for pictures and pages")
    text = "a pixel; may be repeated"
    parser.add_argument("--point", type=_point, action="append", default=[], metavar="X,Y", help=text)
    text = "the K most certain ones: the middle of the box, or each keypoint (default: 1 without --point)"
    parser.add_argument("--detections", type=int, metavar="K", help=text)
    text = "how its name ends (default: all blocks)"
    parser.add_argument("--block", action="append", default=[], metavar="NAME", help=text)
    add_detection_flags(parser)
    return parser


def _point(text: str) -> tuple[int, int]:
    try:
        x, y = map(int, text.split(","))
    except ValueError:
        # Where X and Y are two words, argparse gives the first one only.
        words = zip(sys.argv, sys.argv[1:], sys.argv[2:], strict=False)
        following = [third for first, second, third in words if (first, second) == ("--point", text)]
        meant = re.match(r"(-?\d+)[ ,]+(-?\d+)(?!\S)", " ".join([text, *following[:1]]))
        advice = f"write {meant[1]},{meant[2]}" if meant else f"got {text!r}"
        raise argparse.ArgumentTypeError(f"a point is X,Y in pixels: {advice}") from None
    return x, y
