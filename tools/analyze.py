#!/usr/bin/env python
"""Count parameters, multiply-adds and activations of a config by stage, and by how much its non-local blocks
exceed its baseline. Of several configs, or of all in a folder, a line each:

    python tools/analyze.py --config-file configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml
    python tools/analyze.py --config-file configs/Ablations --format markdown --output ablations.md

Counted is one image in inference, padded as the model needs: all parameters, the frozen ones too; the
multiply-adds of convolutions, linear layers and matrix products; as activations the values that these put
out. How many regions the heads see is given, and not what some weights would detect. Only shapes are
computed, which takes a second for most models, and no memory.

"As written" is the operation with the N x M matrix of Eq. 1, and for concatenation with the pairs of Eq. 5.
Dot product and concatenation are computed without these where that is cheaper.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.analysis import Counts, count_by_stage, total
from nl_detectron.config import baseline_of, check_placement_is_used
from nl_detectron.engine import read_config, tool_parser
from nl_detectron.errors import ArgumentError, UserError, one_line_errors, wants_tracebacks
from nl_detectron.files import written_whole

UNITS = {"parameters (M)": 1e6, "multiply-adds (G)": 1e9, "activations (M)": 1e6}
FORMATS = {"text": "simple", "markdown": "github", "csv": ""}  # the first two as tabulate calls them
SIZES = {  # with the least that each can be
    "height": (800, 1, "of the image in pixels"),
    "width": (1333, 1, "of the image in pixels"),
    "proposals": (1000, 0, "that the box head sees"),
    "detections": (100, 0, "that the mask and keypoint heads see"),
}
Row = dict[str, str | float]


def main() -> None:
    parser = tool_parser(__doc__, several_configs=True)
    for name, (default, _, text) in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default: {default})")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: the terminal")
    args = parser.parse_args()
    with one_line_errors():
        sizes = read_sizes(args)
        if args.output is not None and args.output.is_dir():  # "" too
            raise ArgumentError("--output", "a file", str(args.output), "Name a file in it.")
        files = list(config_files(args.config_file or [""]))
        rows = parts(read(args, files[0]), sizes) if len(files) == 1 else summaries(args, files, sizes)
        if rows:
            write(format_table(rows, args.format, sizes), args.output)
        if len(files) > 1 and len(rows) < len(files):
            sys.exit(1)  # `summaries` has said why


def write(table: str, output: Path | None) -> None:
    """Print a table, or write it to a file."""
    if output is None:
        print(table)
        return
    with written_whole(output) as path:
        path.write_text(table + "\n")


def read_sizes(args: argparse.Namespace) -> dict[str, int]:
    """What `count_by_stage` takes."""
    for name, (_, least, _) in SIZES.items():
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}; got {getattr(args, name)}.")
    return {name: getattr(args, name) for name in SIZES}


def config_files(names: Sequence[str]) -> Iterator[str]:
    """These files, and those in these folders without what is only the base of others."""
    for name in names:
        if not name or not Path(name).is_dir():
            yield name
            continue
        files = [file for file in sorted(Path(name).glob("*.yaml")) if not file.name.startswith("Base-")]
        if not files:
            raise UserError(
                f"--config-file must be a config, or a folder with some; got {name!r}, which has none."
            )
        yield from map(str, files)


def read(args: argparse.Namespace, file: str) -> CfgNode:
    one = argparse.Namespace(**{**vars(args), "config_file": file})
    with redirect_stdout(None):  # what it says of the machine is of no account here
        cfg, given = read_config(one)
    check_placement_is_used(cfg, given)
    return cfg


def parts(cfg: CfgNode, sizes: dict[str, int]) -> list[Row]:
    """A row for each part of a config's model and each block, their sum, and how it exceeds the baseline."""
    counts, baseline, extra, extra_as_written = compare(cfg, sizes)
    counts = counts | {"total": total(counts.values()), "baseline": baseline}
    rows = {part: _scaled(count) for part, count in counts.items()} | {"extra (%)": extra}
    if extra_as_written != extra:
        rows["extra as written (%)"] = extra_as_written
    return [{"part": part, **row} for part, row in rows.items()]


def summaries(args: argparse.Namespace, files: Sequence[str], sizes: dict[str, int]) -> list[Row]:
    """A row for each config that can be counted; what is in the way of the others goes to standard error."""
    rows = []
    for file in (progress := tqdm(files, desc="counting", unit="config")):
        try:
            rows.append({"config": Path(file).stem, **summary(read(args, file), sizes)})
        except (UserError, OSError) as error:
            if wants_tracebacks():
                raise
            progress.write(f"error: {file}: {error}", file=sys.stderr)
    return rows


def summary(cfg: CfgNode, sizes: dict[str, int]) -> Row:
    """A config's model, and by how much it exceeds its baseline."""
    counts, _, extra, extra_as_written = compare(cfg, sizes)
    row = _scaled(total(counts.values())) | {
        column.partition(" (")[0] + " (+%)": extra[column] for column in extra
    }
    return row | {"multiply-adds as written (+%)": extra_as_written["multiply-adds (G)"]}


def compare(cfg: CfgNode, sizes: dict[str, int]) -> tuple[dict[str, Counts], Counts, Row, Row]:
    """The model's parts, its baseline, and what is extra in per cent of that, as computed and as written."""
    counts = count_by_stage(cfg, **sizes)
    as_written = count_by_stage(cfg, **sizes, as_written=True)
    baseline = total(count_by_stage(baseline_of(cfg), **sizes).values())
    return counts, baseline, *(_percents(baseline, total(each.values())) for each in (counts, as_written))


def _scaled(counts: Counts) -> Row:
    return {column: count / unit for (column, unit), count in zip(UNITS.items(), counts, strict=True)}


def _percents(baseline: Counts, model: Counts) -> Row:
    pairs = zip(UNITS, baseline, model, strict=True)
    return {column: 100 * (count - before) / before for column, before, count in pairs}


def format_table(rows: Sequence[Row], kind: str, sizes: dict[str, int]) -> str:
    """The rows, which have the same columns, in one of FORMATS."""
    if kind == "csv":
        table = io.StringIO()
        writer = csv.DictWriter(table, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return table.getvalue().rstrip()
    table = tabulate(rows, headers="keys", tablefmt=FORMATS[kind], floatfmt=".2f")
    note = "One image of {height} x {width}, {proposals} proposals, {detections} detections.".format(**sizes)
    return f"{table}\n\n{note}"


if __name__ == "__main__":
    main()
