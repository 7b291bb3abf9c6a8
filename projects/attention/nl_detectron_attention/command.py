"""What tools/visualize_attention.py does after parsing its command line."""

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import nl_detectron_shapes  # noqa: F401  (registers shapes_val and the like, whose classes have names)
import numpy as np
from detectron2.data import Metadata
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.config import check_non_local_keys
from nl_detectron.engine import read_config, set_confidence_threshold
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write
from nl_detectron.inspect import Observation, find_images, observe, use_images
from nl_detectron.modeling import non_local_blocks
from nl_detectron.predictor import Predictor

from . import queries
from .page import attention_page
from .pictures import draw_queries
from .words import averages, in_words


def run(args: argparse.Namespace) -> None:
    """Run a command line of tools/visualize_attention.py."""
    with one_line_errors():
        cfg, given = read_config(args)
        check_non_local_keys(cfg, given)
        set_confidence_threshold(cfg, args.confidence_threshold, given)
        images = find_images(args.input)
        name, count = Counter(path.stem for path in images).most_common(1)[0]
        if count > 1:
            raise UserError(f"{count} images are called {name!r}. Rename them.")
        predictor = Predictor(cfg, args.allow_mismatch)
        print(predictor.report)
        blocks = chosen_blocks(predictor, args.block)
        if predictor.report.new_blocks and not args.allow_mismatch:
            raise UserError(
                f"MODEL.WEIGHTS {cfg.MODEL.WEIGHTS!r} lacks {next(iter(predictor.report.new_blocks))}. Give "
                "weights that were trained with it, or --allow-mismatch to see random ones."
            )
        args.output.mkdir(parents=True, exist_ok=True)
        rows = []

        def visualize(path: Path, image: np.ndarray) -> None:
            height, width = image.shape[:2]
            for x, y in args.point:
                if not (0 <= x < width and 0 <= y < height):
                    raise UserError(f"--point {x},{y} is outside {str(path)!r} of {width} x {height} pixels.")
            seen = observe(predictor, image)
            seen.fields[:] = [field for field in seen.fields if field.name in blocks]
            write_files(seen, path, predictor.metadata, args)
            rows.extend({"image": path.name, **row} for row in summary(seen, blocks))

        try:
            use_images(images, visualize)
        finally:
            if rows:
                print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4f", missingval="-"))
                print(*conclusions(rows), sep="\n")
                print(f"written: {args.output}")


def chosen_blocks(predictor: Predictor, endings: Sequence[str]) -> list[str]:
    """The names of the blocks to show: all, or those that end as asked for."""
    names = [name for name, _ in non_local_blocks(predictor.model)]
    if not names:
        raise UserError("The model has no non-local blocks. Use a config with nl in its name.")
    for ending in endings:
        if not any(name.endswith(ending) for name in names):
            raise UserError(f"No block is called --block {ending}. The model has {', '.join(names)}.")
    return [name for name in names if not endings or name.endswith(tuple(endings))]


def find_queries(seen: Observation, args: argparse.Namespace, metadata: Metadata) -> Iterator[queries.Query]:
    """Those at the points, and those of the first detections."""
    for x, y in args.point:
        found = queries.at_point(seen, x, y)
        yield from found
        if not found:
            tqdm.write(f"point {x},{y} lies in no detected region, which is all that these blocks see")
    wanted = int(not args.point) if args.detections is None else args.detections
    count = 0 if seen.instances is None else len(seen.instances)
    if count < wanted:
        tqdm.write(f"{count} of {wanted} detections to show: see --confidence-threshold")
    names = metadata.get("thing_classes", ()), metadata.get("keypoint_names", ())
    for detection in range(min(wanted, count)):
        yield from queries.of_detection(seen, detection, *names)


def write_files(seen: Observation, path: Path, metadata: Metadata, args: argparse.Namespace) -> None:
    """Write the page and the pictures of an image."""
    found = list(find_queries(seen, args, metadata))
    with atomic_write(args.output / f"{path.stem}.html") as unfinished:
        page = attention_page(seen, path.name, metadata.get("thing_classes", ()), next(iter(found), None))
        unfinished.write_text(page, encoding="utf-8")
    groups: dict[str, list[queries.Query]] = {}
    for query in found:
        group = re.sub(r"[^\w,.-]+", "_", query.group)  # names of classes may have any letters
        groups.setdefault(f"{path.stem}.{query.field.name}.{group}.png", []).append(query)
    for file, group in groups.items():
        with atomic_write(args.output / file) as unfinished:
            draw_queries(seen.image, group).savefig(unfinished, format="png")


def summary(seen: Observation, blocks: Sequence[str]) -> Iterator[dict[str, object]]:
    """What the table says of each block: the means over its fields, if it has seen any."""
    figures = averages(seen.fields)
    for name in blocks:
        dependence, change = figures.get(name, (None, None))
        yield {"block": name, "query dependence": dependence, "change of x": change}


def conclusions(rows: Sequence[dict[str, object]]) -> Iterator[str]:
    """A line in words for each block, from its means over the images."""
    seen = [row for row in rows if row["change of x"] is not None]
    for name in dict.fromkeys(row["block"] for row in seen):
        figures = [(row["query dependence"], row["change of x"]) for row in seen if row["block"] == name]
        yield f"{name}: {in_words(*np.mean(figures, axis=0))}"
