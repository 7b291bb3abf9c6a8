#!/usr/bin/env python
"""Draw what a position of a video attends to in space and time, for each block: see README.md.

    python projects/video/attention.py --config-file CONFIG.py --input VIDEO.mp4 --frame 16 --point 120 80 \
        --output output/attention train.init_checkpoint=WEIGHTS
"""

import argparse
from pathlib import Path

from detectron2.config import instantiate
from nl_video.attention import attend, draw_attention
from nl_video.lazy import read_config
from nl_video.weights import load_weights

from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write


def main() -> None:
    args = _parser().parse_args()
    with one_line_errors():
        cfg = read_config(args.config_file, args.opts)
        model = instantiate(cfg.model)
        if new := load_weights(model.net, cfg.train.init_checkpoint):
            raise UserError(f"train.init_checkpoint {cfg.train.init_checkpoint} lacks {new}.")
        mapper = instantiate(cfg.dataloader.test.mapper)
        mapper.clips = 1
        if "clips" not in (read := mapper({"file_name": args.input})):
            raise UserError(f"--input {args.input} cannot be read as a video.")
        clip = read["clips"][0]
        _, frames, height, width = clip.shape
        x, y = args.point or (width / 2, height / 2)
        if not (0 <= args.frame < frames and 0 <= x < width and 0 <= y < height):
            raise UserError(
                f"--frame and --point must lie within {frames} frames of {width} x {height} pixels."
            )
        args.output.mkdir(parents=True, exist_ok=True)
        for each in attend(model, clip, args.frame, y, x):
            with atomic_write(args.output / f"{each.name}.png") as unfinished:
                draw_attention(clip, each).savefig(unfinished, dpi=100, format="png")
            print(args.output / f"{each.name}.png")


def _parser() -> argparse.ArgumentParser:
    parser = program_parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE")
    parser.add_argument("--input", required=True, metavar="VIDEO")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--frame", type=int, default=0, help="of the clip, from 0 (default: %(default)s)")
    text = "pixels of the resized frame (default: its center)"
    parser.add_argument("--point", type=float, nargs=2, metavar=("X", "Y"), help=text)
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="of the config")
    return parser


if __name__ == "__main__":
    main()
