"""Draw the shapes data set: shapes and stick figures in COCO's format.

    python -m nl_detectron_shapes --train 1000 --val 200

draws shapes_{train,val} and keypoints_shapes_{train,val} below DETECTRON2_DATASETS (or ./datasets), where
train_net.py and the tools find them. datasets/generate_shapes.py is the same program.
"""

import sys
from pathlib import Path

from nl_detectron.errors import one_line_errors
from nl_detectron_cli.arguments import program_parser

from . import add_drawing_flags, write_shapes


def main() -> None:
    parser = program_parser(__doc__)
    if Path(sys.argv[0]).name == "__main__.py":
        parser.prog = "python -m nl_detectron_shapes"
    add_drawing_flags(parser, size=160)
    args = parser.parse_args()
    folder = args.root / "shapes"
    with one_line_errors():
        new = write_shapes(folder, train=args.train, val=args.val, size=args.size, seed=args.seed)
    print(f"{folder} {'is drawn' if new else 'holds this data set already'}")


if __name__ == "__main__":
    main()
