#!/usr/bin/env python
"""See what positions attend to: heat maps and the paper's Figure 3 arrows for chosen points or detections,
and a page in which every position can be pointed at.

    python tools/visualize_attention.py --config-file CONFIG --input photo.jpg --point 320,200 \\
        --output FOLDER MODEL.WEIGHTS model_final.pth

FOLDER gets photo.html, which opens in any browser, and a PNG for each block and point or detection. A table
says how far the maps of each block depend on the position at all.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import Metadata
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.attention import Observation, attention_page, draw_queries, observe, queries
from nl_detectron.engine import read_config, tool_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import written_whole
from nl_detectron.images import find_images, read_image
from nl_detectron.modeling import non_local_blocks
from nl_detectron.predictor import Predictor, set_confidence_threshold


def blocks_of(predictor: Predictor, endings: Sequence[str]) -> list[str]:
    """The names of the blocks to show: all, or those that end as asked for.

    Raises:
        UserError: if there are none, with the names that there are.
    """
    names = [name for name, _ in non_local_blocks(predictor.model)]
    if not names:
        raise UserError("--config-file must place non-local blocks; this one places none.")
    for ending in endings:
        if not any(name.endswith(ending) for name in names):
            raise UserError(f"--block must be the end of one of {', '.join(names)}; got {ending!r}.")
    return [name for name in names if not endings or name.endswith(tuple(endings))]


def find_queries(
    observation: Observation, points: list[tuple[int, int]], detections: int, metadata: Metadata
) -> Iterator[queries.Query]:
    """Those at the points, and those of the first detections.

    Raises:
        UserError: if a point is not in the image, or nothing was detected.
    """
    height, width = observation.image.shape[:2]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"--point must lie in the image of {width} x {height} pixels; got {x},{y}.")
        yield from queries.at_point(observation, x, y)
    found = 0 if observation.instances is None else len(observation.instances)
    if detections and not found:
        raise UserError(
            "--detections must have some to show; nothing was detected. "
            "Lower --confidence-threshold, or give --point."
        )
    names = metadata.get("thing_classes", ()), metadata.get("keypoint_names", ())
    for detection in range(min(detections, found)):
        yield from queries.of_detection(observation, detection, *names)


def main() -> None:
    args = _parser().parse_args()
    with one_line_errors():
        cfg, _ = read_config(args)
        if args.detections is None:
            args.detections = 0 if args.point else 1
        images = find_images(args.input)
        _check_names(images)
        set_confidence_threshold(cfg, args.confidence_threshold)
        predictor = Predictor(cfg, args.allow_mismatch)
        blocks = blocks_of(predictor, args.block)
        args.output.mkdir(parents=True, exist_ok=True)
        rows = []
        for path in tqdm(images, desc="attention", unit="image"):
            rows += _show(predictor, path, blocks, args)
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".3f"))


def _show(predictor: Predictor, path: Path, blocks: list[str], args: argparse.Namespace) -> list[dict]:
    """Write the pictures and the page of an image; what the table says of it."""
    seen = observe(predictor.model, read_image(path), predictor.aug, predictor.input_format)
    seen = Observation(seen.image, seen.instances, [field for field in seen.fields if field.name in blocks])
    with written_whole(args.output / f"{path.stem}.html") as unfinished:
        page = attention_page(seen, path.name, predictor.metadata.get("thing_classes", ()))
        unfinished.write_text(page, encoding="utf-8")
    groups: dict[str, list[queries.Query]] = {}
    for query in find_queries(seen, args.point, args.detections, predictor.metadata):
        groups.setdefault(f"{path.stem}.{query.field.name}.{query.group}", []).append(query)
    for name, group in groups.items():
        file = re.sub(r"[^\w,.-]+", "_", name) + ".png"  # names of classes may have any letters
        with written_whole(args.output / file) as unfinished:
            draw_queries(seen.image, group).savefig(unfinished, format="png")
    return [
        {
            "image": path.name,
            "block": name,
            "query dependence": np.mean([field.query_dependence() for field in fields]) if fields else None,
            "change of x": np.mean([field.change() for field in fields]) if fields else None,
        }
        for name in blocks
        for fields in [[field for field in seen.fields if field.name == name]]
    ]


def _check_names(images: list[Path]) -> None:
    name, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise UserError(f"--input must be images of different names; {count} are called {name!r}.")


def _point(text: str) -> tuple[int, int]:
    x, y = text.split(",")
    return int(x), int(y)


_point.__name__ = "point, as X,Y in pixels"  # argparse's name for it in errors


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    parser.add_argument("--input", nargs="+", required=True, help="images, folders of images, or globs")
    parser.add_argument("--output", type=Path, required=True, help="the folder for pictures and pages")
    parser.add_argument(
        "--point", type=_point, action="append", default=[], metavar="X,Y", help="a pixel; may be repeated"
    )
    parser.add_argument(
        "--detections",
        type=int,
        metavar="K",
        help="the K most certain ones: the middle of the box, or each keypoint (default: 1 without --point)",
    )
    parser.add_argument(
        "--block", action="append", default=[], metavar="NAME", help="how its name ends (default: all blocks)"
    )
    parser.add_argument(
        "--confidence-threshold", type=float, default=0.5, help="of detections (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="weights that lack tensors, e.g. those of the blocks"
    )
    return parser


if __name__ == "__main__":
    main()
