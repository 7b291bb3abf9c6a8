#!/usr/bin/env python
"""Does the block help? Train a matrix of models on pictures whose labels something far away decides, and on
their control, and report what comes of it.

    python tools/experiment.py --arm mask/baseline --arm mask/nl_res4 --jobs 2
    python tools/experiment.py --report docs/evidence.md

Called again, it goes on where it was: what is finished is not trained again, what was interrupted is resumed.
--list shows the matrix, and what of it is finished. --report writes the tables of what is finished into their
places in a Markdown file, between <!-- results:places --> (or settings, keypoint, chance, attention,
summary) and <!-- /results -->, and the pictures beside it.
"""

import argparse
from pathlib import Path

from experimenting.folder import Experiment, keep, kept
from experimenting.matrix import Training, trainings, with_starts
from experimenting.report import write_report
from experimenting.runs import run_all
from tabulate import tabulate

from nl_detectron.engine.command_line import output_path
from nl_detectron.errors import UserError, one_line_errors


def main() -> None:
    args = _parser().parse_args()
    with one_line_errors():
        asked = with_starts(trainings(args.arm, args.seed))
        if args.jobs < 1:
            raise UserError(f"--jobs must be at least 1; got {args.jobs}.")
        output = args.output.resolve()
        if args.report:
            write_report(kept(output), args.report)
        elif args.list:
            print(tabulate(list_of(asked, kept(output)), ["arm", "seed", "what", "steps"]))
        else:
            experiment = Experiment(output, args.train, args.val, args.opts)
            with keep(experiment) as lock:
                run_all(experiment, asked, args.jobs, lock)
            print(f"{len(asked)} trainings are finished in {args.output}.")


def list_of(asked: list[Training], experiment: Experiment) -> list[tuple[str, int, str, str]]:
    return [
        (t.arm.path, t.seed, t.arm.name, "finished" if experiment.finished(t) else str(experiment.step(t)))
        for t in asked
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, output_path)
    parser.add_argument("--output", type=Path, default=Path("output/experiment"), metavar="FOLDER")
    parser.add_argument(
        "--arm",
        action="append",
        default=[],
        metavar="PATTERN",
        help="arms as --list names them, with the shell's * and ?; may be repeated (default: all)",
    )
    parser.add_argument(
        "--seed", type=int, action="append", default=[], metavar="N", help="may be repeated (default: all)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many at a time (default: 1)")
    parser.add_argument("--train", type=int, default=800, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="pictures of each kind (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--list", action="store_true", help="show the matrix, train nothing")
    instead.add_argument("--report", type=Path, metavar="FILE", help="write the report, train nothing")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="keys of the config for all trainings"
    )
    return parser


if __name__ == "__main__":
    main()
