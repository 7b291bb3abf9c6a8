"""Draw the shapes data set: shapes and stick figures in COCO's format.

    python -m nl_detectron_shapes --train 1000 --val 200

draws shapes_{train,val} and keypoints_shapes_{train,val} below DETECTRON2_DATASETS (or ./datasets), where
train_net.py and the tools find them. datasets/generate_shapes.py is the same program.
"""

import sys
from pathlib import Path

from nl_detectron.errors import one_line_errors
from nl_detectron_cli.arguments import program_parser

from . import datasets_root, write_shapes


def main() -> None:
    parser = program_parser(__doc__)
    if Path(sys.argv[0]).name == "__main__.py":
        parser.prog = "python -m nl_detectron_shapes"
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        help="folder of all data sets; DETECTRON2_DATASETS if that is set (default: %(default)s)",
    )
    parser.add_argument("--train", type=int, default=800, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("--size", type=int, default=160, help="side in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: %(default)s)")
    args = parser.parse_args()
    folder = args.root / "shapes"
    with one_line_errors():
        new = write_shapes(folder, train=args.train, val=args.val, size=args.size, seed=args.seed)
    print(f"{folder} {'is drawn' if new else 'holds this data set already'}")


if __name__ == "__main__":
    main()
