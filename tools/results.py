#!/usr/bin/env python
"""The table of finished trainings: each model with non-local blocks beside its baseline, as in the paper.

    python tools/results.py --input output/baseline_1 output/nl_1 output/baseline_2 output/nl_2
    python tools/results.py --input output/*_[0-9] --format csv --output results.csv --curves curves.png
    python tools/results.py --input output/*_[0-9] --update README.md

--input takes output folders of train_net.py. A training and its baseline are paired by SEED, and must differ
in non-local keys alone; a difference is the mean over the pairs ± their sample standard deviation. AP is that
of the last iteration. The paper's values stand below what is a row of its Tables 5 and 6: the same model,
blocks and data.

--update writes a table with all rows of the paper, trained or not, into a Markdown file, between the lines
<!-- results:mask --> (or keypoint, or box) and <!-- /results -->. Give all trainings: the table is written
anew.
"""

import argparse
from pathlib import Path

from nl_detectron.errors import ArgumentError, UserError, one_line_errors
from nl_detectron.files import written_whole
from nl_detectron.results import (
    FORMATS,
    check_format,
    draw_curves,
    fill_in,
    format_table,
    pair_runs,
    read_run,
    result_table,
    sort_into_places,
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", type=Path, nargs="+", default=[], metavar="FOLDER", help="finished trainings"
    )
    parser.add_argument("--format", default="text", choices=FORMATS, help="text by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the table, instead of printing it")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="for plots of loss and AP")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown whose tables are replaced")
    args = parser.parse_args()
    with one_line_errors():
        if not args.input:
            raise UserError("--input must name output folders of train_net.py; got none.")
        check_files(args)
        comparisons = pair_runs(map(read_run, args.input))
        if args.update:
            sort_into_places(args.update, comparisons)  # which refuses what would fail later
        write(format_table(result_table(comparisons), args.format), args.output)
        if args.curves:
            draw_curves(comparisons, args.curves)
        if args.update:
            fill_in(args.update, comparisons)


def check_files(args: argparse.Namespace) -> None:
    """Refuse, before anything is written, a file that cannot be, and one that would replace another."""
    given = {"--update": args.update, "--output": args.output, "--curves": args.curves}
    files = {flag: path for flag, path in given.items() if path is not None}
    taken: dict[Path, str] = {}
    for flag, path in files.items():
        if path.is_dir() or not path.parent.is_dir():
            raise ArgumentError(
                flag, "a file in a folder that exists", str(path), "Name another, or make the folder."
            )
        if (other := taken.setdefault(path.resolve(), flag)) != flag:
            raise ArgumentError(flag, f"another file than that of {other}", str(path), "Name another.")
        if flag != "--update" and any(path.resolve().is_relative_to(run.resolve()) for run in args.input):
            raise ArgumentError(flag, "outside the folders of --input", str(path), "Name another.")
    if args.curves:
        check_format(args.curves)


def write(table: str, output: Path | None) -> None:
    """Print a table, or write it to a file."""
    if not output:
        print(table, end="")
        return
    with written_whole(output) as unfinished:
        unfinished.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
