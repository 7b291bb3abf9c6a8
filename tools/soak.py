#!/usr/bin/env python
"""Trains the light Mask R-CNN with a non-local block for a given time, on two cores:

- again and again killed (SIGKILL, at random moments) and resumed, with a worker that loads its data. What
  comes out is compared, to the bit, with a training that was never killed, and evaluated once more;
- beside that in one process that trains and evaluates without end, whose memory and open files are watched.

Prints a table, writes soak.json and soak.png, and exits with 1 if a training came out differently, if a
killed one left a process behind, or if memory or files grew.

    python tools/soak.py --minutes 20 --output output/soak
"""

import argparse
import json
import shutil
import sys
import time
from datetime import date
from pathlib import Path

from soaking.growth import EndlessTraining
from soaking.lives import KilledTrainings
from soaking.report import draw, table
from tqdm import tqdm

from nl_detectron.data import write_shapes
from nl_detectron.errors import UserError, one_line_errors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which trainings are killed")
    parser.add_argument("--output", type=Path, default=Path("output/soak"), metavar="FOLDER")
    args = parser.parse_args()
    with one_line_errors():
        if args.minutes < 2:
            raise UserError(f"--minutes must be at least 2, to see anything; got {args.minutes:g}.")
        sys.exit(0 if soak(args) else 1)


def soak(args: argparse.Namespace) -> bool:
    """Soak, report, and tell whether all was well."""
    output = args.output.resolve()
    if output.exists() and not (output / "soak.json").exists():
        raise UserError(f"--output must be a new folder, or one of an earlier soak; got {args.output}.")
    shutil.rmtree(output, ignore_errors=True)
    write_shapes(output / "datasets" / "shapes", train=40, val=20, size=96)
    killed = KilledTrainings(output, args.seed)
    endless = EndlessTraining(output)
    end = time.monotonic() + 60 * args.minutes
    form = "{l_bar}{bar}| {n:.1f}/{total} min{postfix}"
    with tqdm(total=args.minutes, bar_format=form) as bar, endless, killed:
        while time.monotonic() < end:
            killed.advance()
            endless.sample()
            bar.n = args.minutes - max(0.0, end - time.monotonic()) / 60
            bar.set_postfix_str(f"{killed}, {endless}")
            time.sleep(0.2)
        killed.stop()
    results = {"date": date.today().isoformat(), **killed.results(), **endless.results()}
    (output / "soak.json").write_text(json.dumps(results, indent=1))
    draw(endless.samples, killed.moments, output / "soak.png")
    print(table(results))
    return killed.is_well() and endless.is_well()


if __name__ == "__main__":
    main()
