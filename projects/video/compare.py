#!/usr/bin/env python
"""Train a light C2D and its non-local nets on drawn clips, and print their accuracy: see README.md.

python projects/video/compare.py --jobs 2
"""

from pathlib import Path

from nl_video.comparison import SEEDS, compare, comparison_table
from nl_video.drawn import preview, write_videos

from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write

SUFFIXES = (".png", ".pdf", ".svg")


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/drawn_clips"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=300, help="of each training (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="may be repeated (default: 1, 2, 3)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--preview", type=Path, metavar="FILE", help="draw clips of each kind; train nothing"
    )
    text = "write clips as videos, in Kinetics' layout; train nothing"
    instead.add_argument("--videos", type=Path, metavar="FOLDER", help=text)
    parser.add_argument("--train", type=int, default=800, help="videos (default: %(default)s)")
    parser.add_argument("--val", type=int, default=80, help="videos (default: %(default)s)")
    args = parser.parse_args()
    with one_line_errors():
        if min(args.jobs, args.steps, args.train, args.val) < 1:
            raise UserError("--jobs, --steps, --train and --val must be at least 1.")
        if args.seed and min(args.seed) < 1:
            raise UserError(f"--seed must be at least 1; got {min(args.seed)}. Test clips have the seed 0.")
        if args.videos:
            write_videos(args.videos, args.train, args.val)
        elif args.preview:
            if args.preview.suffix not in SUFFIXES:
                raise UserError(f"--preview {args.preview} ends in none of {', '.join(SUFFIXES)}.")
            with atomic_write(args.preview) as unfinished:
                preview().savefig(unfinished, dpi=80, format=args.preview.suffix.removeprefix("."))
        else:
            print(comparison_table(compare(args.output, args.jobs, args.steps, args.seed or SEEDS)))


if __name__ == "__main__":
    main()
