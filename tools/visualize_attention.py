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
from nl_detectron.config import check_placement_is_used
from nl_detectron.engine import add_detection_flags, read_config, set_confidence_threshold, tool_parser
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import written_whole
from nl_detectron.images import find_images, use_images
from nl_detectron.modeling import non_local_blocks
from nl_detectron.predictor import Predictor


def chosen_blocks(predictor: Predictor, endings: Sequence[str]) -> list[str]:
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
    """Those at the points, and those of the first detections."""
    for x, y in points:
        found = queries.at_point(observation, x, y)
        yield from found
        if not found:
            tqdm.write(f"point {x},{y} lies in no detected region, which is all that these blocks see")
    found = 0 if observation.instances is None else len(observation.instances)
    if found < detections:
        tqdm.write(f"{found} of {detections} detections to show: see --confidence-threshold")
    names = metadata.get("thing_classes", ()), metadata.get("keypoint_names", ())
    for detection in range(min(detections, found)):
        yield from queries.of_detection(observation, detection, *names)


def main() -> None:
    args = _parser().parse_args()
    with one_line_errors():
        cfg, given = read_config(args)
        check_placement_is_used(cfg, given)
        if args.detections is None:
            args.detections = 0 if args.point else 1
        if args.detections < 0:
            raise UserError(f"--detections must be 0 or more; got {args.detections}.")
        images = find_images(args.input)
        _check_names(images)
        set_confidence_threshold(cfg, args.confidence_threshold, given)
        predictor = Predictor(cfg, args.allow_mismatch)
        print(predictor.report)
        blocks = chosen_blocks(predictor, args.block)
        if predictor.report.new_blocks and not args.allow_mismatch:
            raise UserError(
                f"MODEL.WEIGHTS must have the weights of the blocks; {cfg.MODEL.WEIGHTS!r} has not those of "
                f"{next(iter(predictor.report.new_blocks))}. --allow-mismatch shows random ones."
            )
        args.output.mkdir(parents=True, exist_ok=True)
        rows = []

        def visualize(path: Path, image: np.ndarray) -> None:
            _check_points(args.point, path, image)
            seen = observe(predictor, image)
            fields = [field for field in seen.fields if field.name in blocks]
            seen = Observation(image, seen.instances, fields)
            _write(seen, path, predictor.metadata, args)
            rows.extend({"image": path.name, **row} for row in summary(seen, blocks))

        try:
            use_images(images, visualize)
        finally:
            if rows:
                print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4f", missingval="-"))
                print(f"written: {args.output}")


def _write(seen: Observation, path: Path, metadata: Metadata, args: argparse.Namespace) -> None:
    """Write the pictures and the page of an image."""
    with written_whole(args.output / f"{path.stem}.html") as unfinished:
        page = attention_page(seen, path.name, metadata.get("thing_classes", ()))
        unfinished.write_text(page, encoding="utf-8")
    groups: dict[str, list[queries.Query]] = {}
    for query in find_queries(seen, args.point, args.detections, metadata):
        group = re.sub(r"[^\w,.-]+", "_", query.group)  # names of classes may have any letters
        groups.setdefault(f"{path.stem}.{query.field.name}.{group}.png", []).append(query)
    for file, group in groups.items():
        with written_whole(args.output / file) as unfinished:
            draw_queries(seen.image, group).savefig(unfinished, format="png")


def summary(seen: Observation, blocks: Sequence[str]) -> Iterator[dict[str, object]]:
    """What the table says of each block: the means over its fields, if it has seen any."""
    for name in blocks:
        fields = [field for field in seen.fields if field.name == name]
        yield {
            "block": name,
            "query dependence": np.mean([field.query_dependence for field in fields]) if fields else None,
            "change of x": np.mean([field.change for field in fields]) if fields else None,
        }


def _check_points(points: list[tuple[int, int]], path: Path, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f"--point must lie in {str(path)!r} of {width} x {height} pixels; got {x},{y}.")


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
    add_detection_flags(parser)
    return parser


if __name__ == "__main__":
    main()
