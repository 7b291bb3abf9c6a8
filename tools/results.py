#!/usr/bin/env python
"""The table of finished trainings: each model with non-local blocks beside its baseline, as in the paper.

    python tools/results.py --input output/baseline_1 output/nl_1 output/baseline_2 output/nl_2
    python tools/results.py --input output/* --format csv --output results.csv --curves curves.png
    python tools/results.py --input output/* --update README.md

--input takes output folders of train_net.py. A training and its baseline are paired by SEED, and must differ
in non-local keys alone; a difference is the mean over the pairs ± their sample standard deviation. AP is that
of the last iteration. The paper's values stand below what is a row of its Tables 5 and 6: the same model,
blocks and data.

--update writes a table with all rows of the paper, trained or not, into a Markdown file, between the lines
<!-- results:mask --> (or keypoint, or box) and <!-- /results -->.
"""

import argparse
from pathlib import Path

from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import written_whole
from nl_detectron.results import (
    FORMATS,
    draw_curves,
    fill_in,
    format_table,
    pair_runs,
    read_run,
    result_table,
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
        if not args.input and (args.curves or args.output or not args.update):
            raise UserError("--input must name output folders of train_net.py; got none.")
        comparisons = pair_runs(map(read_run, args.input))
        if args.input:
            write(format_table(result_table(comparisons), args.format), args.output)
        if args.curves:
            draw_curves(comparisons, args.curves)
        if args.update:
            fill_in(args.update, comparisons)


def write(table: str, output: Path | None) -> None:
    """Print a table, or write it to a file."""
    if not output:
        print(table, end="")
        return
    with written_whole(output) as unfinished:
        unfinished.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
