"""The table of finished trainings: each model with non-local blocks beside its baseline, as in the paper.

    python tools/results.py --input output/baseline_1 output/nl_1 output/baseline_2 output/nl_2
    python tools/results.py --input output/*_[0-9] --format csv --output results.csv --curves curves.png
    python tools/results.py --input output/*_[0-9] --update docs/reproducing.md

--input takes output folders of train_net.py. A training and its baseline are paired by SEED, and must differ
in non-local keys alone. A difference is the mean over the pairs ± their sample standard deviation. A training
without a partner is a row without a difference, with a note on stderr. AP is that of the last iteration. The
paper's values stand below what is a row of its Tables 5 and 6: the same model, blocks and data.

--update writes a table with all rows of the paper, trained or not, into a Markdown file, between the lines
<!-- results:mask --> (or keypoint, or box) and <!-- /results -->. Give all trainings: the table is replaced.
"""

import argparse
from pathlib import Path

from .arguments import program_parser

FORMATS = {"text": "simple", "markdown": "github", "csv": ""}  # and what tabulate calls them


def main() -> None:
    args = _parser().parse_args()
    from nl_detectron_cli.result_tables.program import run  # after parsing: see __init__

    run(args)


def _parser() -> argparse.ArgumentParser:
    parser = program_parser(__doc__)
    parser.add_argument("--input", type=Path, nargs="+", required=True, metavar="FOLDER", help="trainings")
    parser.add_argument("--format", default="text", choices=FORMATS, help="text by default")
    parser.add_argument("--output", type=Path, metavar="FILE", help="for the table, instead of printing it")
    parser.add_argument("--curves", type=Path, metavar="FILE", help="for plots of loss and AP")
    parser.add_argument("--update", type=Path, metavar="FILE", help="Markdown whose tables are replaced")
    return parser
