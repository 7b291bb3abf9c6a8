#!/usr/bin/env python
"""Train a light C2D and its non-local nets on drawn clips, and print their accuracy: see README.md.

python projects/video/compare.py --jobs 2
"""

import argparse
from pathlib import Path

from nl_video.comparison import SEEDS, compare, comparison_table
from nl_video.drawn import preview

from nl_detectron.engine import output_path
from nl_detectron.errors import one_line_errors
from nl_detectron.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=output_path, default=Path("output/drawn_clips"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="of each training (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, action="append", metavar="N", help="may be repeated (default: 1, 2, 3)"
    )
    parser.add_argument("--preview", type=Path, metavar="FILE", help="draw clips of each kind; train nothing")
    args = parser.parse_args()
    with one_line_errors():
        if args.preview:
            with atomic_write(args.preview.resolve()) as unfinished:
                preview().savefig(unfinished, dpi=80, format=args.preview.suffix.removeprefix("."))
        else:
            print(comparison_table(compare(args.output, args.jobs, args.steps, args.seed or SEEDS)))


if __name__ == "__main__":
    main()
