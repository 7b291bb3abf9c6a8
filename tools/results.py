#!/usr/bin/env python
"""The table of finished trainings: each model with non-local blocks beside its baseline, as in the paper.

    python tools/results.py --input output/baseline_1 output/nl_1 output/baseline_2 output/nl_2
    python tools/results.py --input output/*_[0-9] --format csv --output results.csv --curves curves.png
    python tools/results.py --input output/*_[0-9] --update README.md

--input takes output folders of train_net.py. A training and its baseline are paired by SEED, and must differ
in non-local keys alone. A difference is the mean over the pairs ± their sample standard deviation. AP is that
of the last iteration. The paper's values stand below what is a row of its Tables 5 and 6: the same model,
blocks and data.

--update writes a table with all rows of the paper, trained or not, into a Markdown file, between the lines
<!-- results:mask --> (or keypoint, or box) and <!-- /results -->. Give all trainings: the table is replaced.
"""

import argparse
import shutil
from pathlib import Path

from matplotlib.figure import Figure
from result_tables.curves import plot_curves
from result_tables.pairing import pair_runs, read_finished
from result_tables.tables import FORMATS, filled_in, format_table, result_table

from nl_detectron.engine import output_path
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, output_path)
    parser.add_argument("--input", type=Path, nargs="+", required=True, metavar="FOLDER", help="trainings")
    parser.add_argument("--format", default="text", choices=FORMATS, help="text by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the table, instead of printing it")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="for plots of loss and AP")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown whose tables are replaced")
    args = parser.parse_args()
    with one_line_errors():
        check_files(args)
        run(args)


def check_files(args: argparse.Namespace) -> None:
    """Refuse, before anything is written, a file that would replace another."""
    paths = [path.resolve() for path in (args.output, args.curves, args.update) if path]
    if len({*paths}) < len(paths):
        raise UserError("--output, --curves and --update must name different files.")
    for path in paths:
        if any(path.is_relative_to(folder.resolve()) for folder in args.input):
            raise UserError(f"{path} is in a folder of --input. Name another file.")
    formats = Figure().canvas.get_supported_filetypes()
    if args.curves and args.curves.suffix[1:].lower() not in formats:
        raise UserError(f"--curves {args.curves} must end in .png, or one of {', '.join(formats)}.")


def run(args: argparse.Namespace) -> None:
    """Compare the trainings, and only then write what was asked for."""
    comparisons = pair_runs([read_finished(folder) for folder in args.input])
    page = filled_in(args.update, comparisons) if args.update else b""
    table = format_table(result_table(comparisons), args.format)
    if args.output:
        with atomic_write(args.output) as unfinished:
            unfinished.write_text(table, encoding="utf-8")
    else:
        print(table, end="")
    if args.curves:
        with atomic_write(args.curves) as unfinished:
            plot_curves(comparisons).savefig(unfinished, dpi=150, format=args.curves.suffix[1:])
    if args.update:
        path = args.update.resolve()  # of a link, the file that it names
        with atomic_write(path) as unfinished:
            unfinished.write_bytes(page)
            shutil.copymode(path, unfinished)


if __name__ == "__main__":
    main()
