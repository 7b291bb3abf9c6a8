#!/usr/bin/env python
"""The table of finished trainings: each model with non-local blocks beside its baseline, as in the paper.

    python tools/results.py --input output/baseline_1 output/nl_1 output/baseline_2 output/nl_2
    python tools/results.py --input output/*_[0-9] --format csv --output results.csv --curves curves.png
    python tools/results.py --input output/*_[0-9] --update docs/reproducing.md

--input takes output folders of train_net.py. A training and its baseline are paired by SEED, and must differ
in non-local keys alone. A difference is the mean over the pairs ± their sample standard deviation. AP is that
of the last iteration. The paper's values stand below what is a row of its Tables 5 and 6: the same model,
blocks and data.

--update writes a table with all rows of the paper, trained or not, into a Markdown file, between the lines
<!-- results:mask --> (or keypoint, or box) and <!-- /results -->. Give all trainings: the table is replaced.
"""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path

from result_tables.curves import plot_curves
from result_tables.pairing import Comparison, pair_runs, read_finished, scores_of
from result_tables.paper import TABLE_5, TABLE_6
from result_tables.tables import FORMATS, format_table, result_table

from nl_detectron.engine import output_path
from nl_detectron.errors import UserError, one_line_errors

PICTURES = (".png", ".pdf", ".svg")
# What is evaluated for a place, the most special first, and the rows of the paper that belong there.
PLACES = {"keypoint": ("keypoints/AP", [*TABLE_6]), "mask": ("segm/AP", [*TABLE_5]), "box": ("bbox/AP", [])}
_PLACE = re.compile(r"(<!-- results:(\w+) -->\r?\n).*?(<!-- /results -->)", re.DOTALL)


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
        if args.curves and args.curves.suffix not in PICTURES:
            raise UserError(f"--curves {args.curves} must end in {', '.join(PICTURES)}.")
        comparisons = pair_runs([read_finished(folder) for folder in args.input])
        page = filled_in(args.update, comparisons) if args.update else b""
        table = format_table(result_table(comparisons), args.format)
        if args.output:
            args.output.write_text(table, encoding="utf-8")
        else:
            print(table, end="")
        if args.curves:
            plot_curves(comparisons).savefig(args.curves, dpi=150)
        if args.update:
            args.update.write_bytes(page)


def filled_in(path: Path, comparisons: Sequence[Comparison]) -> bytes:
    """A Markdown file with its tables: what was trained, and the paper's rows, trained or not.

    Raises:
        UserError: if the file lacks a place, or has one with an unknown name or no end; and for an AP of nan.
    """
    text = path.read_bytes().decode()  # with its own line ends
    found = [match[2] for match in _PLACE.finditer(text)]
    if not found or len(found) != text.count("<!-- results:") or not set(found) <= set(PLACES):
        places = ", ".join(f"<!-- results:{place} -->" for place in PLACES)
        ends = "a line <!-- /results --> after it"
        raise UserError(f"{path} needs places for tables: a line {places} each, and {ends}.")
    tables: dict[str, list[Comparison]] = {place: [] for place in found}
    for comparison in comparisons:
        for run in comparison.baselines + comparison.runs:
            if any(map(math.isnan, scores_of(run).values())):
                raise UserError(f"{run.folder} has an AP of nan, which is no result. Train for longer.")
        place = next(place for place, (score, _) in PLACES.items() if score in scores_of(comparison.runs[0]))
        if place not in tables:
            raise UserError(f"{path} has no place <!-- results:{place} --> for {comparison.runs[0].folder}.")
        tables[place].append(comparison)

    def fill(match: re.Match[str]) -> str:
        begin, place, end = match.groups()
        return begin + format_table(result_table(tables[place], PLACES[place][1]), "markdown") + end

    return _PLACE.sub(fill, text).encode()


if __name__ == "__main__":
    main()
