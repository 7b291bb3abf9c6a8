#!/usr/bin/env python
"""Train the matrix of models on far and near pictures, and report the results: see README.md.

    python projects/far_context/experiment.py --arm mask/baseline --arm mask/nl_res4 --jobs 2
    python projects/far_context/experiment.py --report projects/far_context/README.md

Called again, it skips trainings that are finished and resumes those that were interrupted. What finished ones
came to is kept in results.jsonl.
"""

import argparse
from pathlib import Path

from far_context.folder import Experiment, check_keys, check_record, read_experiment, set_up
from far_context.matrix import Training, trainings, with_starts
from far_context.report import write_report
from far_context.results import Results, read_results, update_results
from far_context.runs import run_all
from tabulate import tabulate

from nl_detectron.engine import program_parser
from nl_detectron.errors import UserError, one_line_errors


def main() -> None:
    args = _parser().parse_args()
    with one_line_errors():
        asked = trainings(args.arm, args.seed)
        if args.jobs < 1:
            raise UserError(f"--jobs must be at least 1; got {args.jobs}.")
        output, file = args.output.resolve(), args.results or args.output / "results.jsonl"
        asked_for = Experiment(output, args.train, args.val, tuple(args.opts))
        if args.report:
            if args.results and not output.exists():
                set_up(asked_for, ()).close()
            experiment = read_experiment(output)
            write_report(experiment, update_results(experiment, file), args.report)
        elif args.list:
            experiment = read_experiment(output)
            print(_list(asked, experiment, read_results(experiment, file)))
        else:
            check_record(asked_for)
            check_keys(asked_for, asked)
            kept = read_results(asked_for, file)
            new = with_starts([training for training in asked if training not in kept])
            with set_up(asked_for, {training.arm.kind for training in new}) as lock:
                try:
                    run_all(asked_for, new, args.jobs, lock)
                except UserError:  # some have failed
                    update_results(read_experiment(output), file)
                    raise
            update_results(read_experiment(output), file)
            print(f"{len(asked)} trainings are finished. What they came to is in {file}.")


def _list(asked: list[Training], experiment: Experiment, results: Results) -> str:
    steps = [
        "finished" if each in results or experiment.finished(each) else str(experiment.step(each))
        for each in asked
    ]
    rows = [(each.arm.path, each.seed, each.arm.name, step) for each, step in zip(asked, steps, strict=True)]
    return tabulate(rows, ["arm", "seed", "what", "steps"])


def _parser() -> argparse.ArgumentParser:
    parser = program_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/experiment"), metavar="FOLDER")
    text = (
        "where results are kept; trainings that it holds are not repeated (default: results.jsonl in FOLDER)"
    )
    parser.add_argument("--results", type=Path, metavar="FILE", help=text)
    text = "arms as --list names them, with the shell's * and ?; may be repeated (default: all)"
    parser.add_argument("--arm", action="append", default=[], metavar="PATTERN", help=text)
    text = "may be repeated (default: all)"
    parser.add_argument("--seed", type=int, action="append", default=[], metavar="N", help=text)
    text = "how many trainings run at a time (default: 1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    parser.add_argument("--train", type=int, default=800, help="pictures of each kind (default: %(default)s)")
    parser.add_argument("--val", type=int, default=100, help="pictures of each kind (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    text = "show the matrix and what is finished, train nothing"
    instead.add_argument("--list", action="store_true", help=text)
    text = "write tables and pictures of what is finished into a Markdown file, train nothing"
    instead.add_argument("--report", type=Path, metavar="FILE", help=text)
    text = "config keys for all trainings, and their values"
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help=text)
    return parser


if __name__ == "__main__":
    main()
