"""What tools/analyze.py does after parsing its command line."""

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nl_detectron_shapes  # noqa: F401  (registers shapes_train and the like, which a config may name)
from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of, check_non_local_keys
from nl_detectron.engine import read_config
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write
from nl_detectron.inspect import Counts, count_by_stage, extra_cost, total

from .analyze import FORMATS, SIZES

UNITS = {"parameters (M)": 1e6, "multiply-adds (G)": 1e9, "activations (M)": 1e6}
Row = dict[str, str | float]


def run(args: argparse.Namespace) -> None:
    """Run a command line of tools/analyze.py."""
    with one_line_errors():
        sizes = {name: getattr(args, name) for name in SIZES}
        if min(args.height, args.width) < 1 or min(args.proposals, args.detections) < 0:
            raise UserError("--height and --width must be 1 or more, --proposals and --detections 0 or more.")
        files = list(config_files(args.config_file or [""]))
        rows = parts(read(args, files[0]), sizes) if len(files) == 1 else summaries(args, files, sizes)
        table = format_table(rows, args.format, sizes)
        if args.output:
            with atomic_write(args.output) as path:
                path.write_text(table + "\n")
        else:
            print(table)
    if len(rows) < len(files):
        sys.exit(1)  # `summaries` has said why


def config_files(names: Sequence[str]) -> Iterator[str]:
    """These files, and those in these folders, shipped ones too, without what is only the base of others."""
    for name in names:
        if not name or not Path(name).is_dir():
            folder = name.removeprefix("configs/").rstrip("/")
            shipped = [each for each in model_zoo.shipped_configs() if os.path.dirname(each) == folder]
            yield from shipped or [name]
            continue
        files = [file for file in sorted(Path(name).glob("*.yaml")) if not file.name.startswith("Base-")]
        if not files:
            raise UserError(f"--config-file {name!r} is a folder without configs.")
        yield from map(str, files)


def read(args: argparse.Namespace, file: str) -> CfgNode:
    """The config of one file, on the CPU: counting needs no device."""
    opts = ["MODEL.DEVICE", "cpu", *args.opts] if file else args.opts
    cfg, given = read_config(argparse.Namespace(**{**vars(args), "config_file": file, "opts": opts}))
    check_non_local_keys(cfg, given)
    return cfg


def parts(cfg: CfgNode, sizes: dict[str, int]) -> list[Row]:
    """A row for each part of a config's model and each block, their sum, and how it exceeds the baseline."""
    counts = count_by_stage(cfg, **sizes)
    model, baseline = (total(each.values()) for each in (counts, count_by_stage(baseline_of(cfg), **sizes)))
    counts |= {"total": model, "baseline": baseline}
    rows = [{"part": part, **_scaled(count)} for part, count in counts.items()]
    return [*rows, {"part": "extra (%)", **_extra(baseline, model)}]


def summaries(args: argparse.Namespace, files: Sequence[str], sizes: dict[str, int]) -> list[Row]:
    """A row for each config that can be counted; errors of the others go to standard error."""
    rows = []
    for file in (progress := tqdm(files, desc="counting", unit="config")):
        try:
            cfg = read(args, file)
            baseline, model = extra_cost(cfg, *sizes.values())
            extra = {f"{name.split(' (')[0]} (+%)": value for name, value in _extra(baseline, model).items()}
            rows.append({"config": Path(file).stem, **_scaled(model), **extra})
        except UserError as error:
            progress.write(f"error: {file}: {error}", file=sys.stderr)
    if not rows:
        raise UserError("None of the configs can be counted (see above).")
    return rows


def _scaled(counts: Counts) -> Row:
    return {column: count / unit for (column, unit), count in zip(UNITS.items(), counts, strict=True)}


def _extra(baseline: Counts, model: Counts) -> Row:
    """By how many per cent a model exceeds its baseline."""
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
