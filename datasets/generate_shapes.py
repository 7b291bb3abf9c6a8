#!/usr/bin/env python
"""Draw the shapes data set: shapes and stick figures in COCO's format.

    python datasets/generate_shapes.py --train 1000 --val 200

draws what Detectron2 then knows as shapes_{train,val} and keypoints_shapes_{train,val}, if it is below
DETECTRON2_DATASETS (or ./datasets).

    python datasets/generate_shapes.py --mode far

draws shapes_far_{train,val} and keypoints_shapes_far_{train,val}: figures that look the same from the front
and from the back, and at the other side of the picture a disc, red or blue, which tells. --mode near is the
control, with the disc beside each figure; --preview FILE shows both.
"""

import argparse
from pathlib import Path

from nl_detectron.data import MODES, dataset_name, datasets_root, write_shapes
from nl_detectron.data.preview import write_preview
from nl_detectron.errors import one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        help="folder of all data sets; DETECTRON2_DATASETS if that is set (default: %(default)s)",
    )
    parser.add_argument("--train", type=int, default=800, help="images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="images (default: %(default)s)")
    parser.add_argument("--size", type=int, help="side in pixels (default: 160; far and near: 256)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=MODES, default="plain", help="what is drawn (default: %(default)s)")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE", help="draw this picture of far and near pairs, no data set"
    )
    args = parser.parse_args()
    size = args.size if args.size is not None else 160 if args.mode == "plain" else 256
    folder = args.root / dataset_name(args.mode)
    with one_line_errors():
        if args.preview:
            write_preview(args.preview)
            print(args.preview)
            return
        new = write_shapes(folder, train=args.train, val=args.val, size=size, seed=args.seed, mode=args.mode)
    print(f"{folder} {'is drawn' if new else 'is kept, it is this data set already'}")


if __name__ == "__main__":
    main()
