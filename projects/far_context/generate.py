#!/usr/bin/env python
"""Draw the far or the near pictures in COCO's format: see README.md.

    python projects/far_context/generate.py --mode far

draws shapes_far_{train,val} and keypoints_shapes_far_{train,val} below DETECTRON2_DATASETS (or ./datasets),
where this project's train_net.py finds them; with --kind own or ends, shapes_{own,ends}_far_*.
--preview FILE draws a picture of far and near pairs instead.
"""

from pathlib import Path

from far_context.pictures import KINDS, MODES, SIZE, dataset_name, write_pictures
from far_context.preview import write_preview
from nl_detectron_shapes import add_drawing_flags

from nl_detectron.engine import program_parser
from nl_detectron.errors import one_line_errors


def main() -> None:
    parser = program_parser(__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--mode", choices=MODES, help="where the disc is")
    what.add_argument("--preview", type=Path, metavar="FILE", help="draw a picture of both modes")
    text = (
        "one disc for all figures, a disc for each, or long figures with it at an end (default: %(default)s)"
    )
    parser.add_argument("--kind", choices=KINDS, default="one", help=text)
    add_drawing_flags(parser, SIZE)
    args = parser.parse_args()
    with one_line_errors():
        if args.preview:
            write_preview(args.preview, args.kind)
            print(args.preview)
            return
        counts = {"train": args.train, "val": args.val}
        sizes = {"size": args.size, "seed": args.seed}
        new = write_pictures(args.root, args.mode, kind=args.kind, **counts, **sizes)
    folder = args.root / dataset_name(args.mode, args.kind)
    print(f"{folder} {'is drawn' if new else 'holds this data set already'}")


if __name__ == "__main__":
    main()
