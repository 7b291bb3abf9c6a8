"""What tools/results.py does after parsing its command line."""

import argparse
import re
import sys
from itertools import chain
from pathlib import Path

import numpy as np

from nl_detectron.errors import UserError, one_line_errors

from .pairing import (
    BASELINE,
    Group,
    blocks_of,
    group_runs,
    read_finished,
    scores_of,
    without_partner,
)
from .tables import (
    TABLE_5,
    TABLE_6,
    format_table,
    plot_curves,
    result_table,
    single_rows,
)

# What is evaluated for a place, the most special first, and the rows of the paper that belong there.
PLACES = {"keypoint": ("keypoints/AP", [*TABLE_6]), "mask": ("segm/AP", [*TABLE_5]), "box": ("bbox/AP", [])}
_PLACE = re.compile(r"(<!-- results:(keypoint|mask|box) -->\r?\n).*?(<!-- /results -->)", re.DOTALL)


def run(args: argparse.Namespace) -> None:
    """Run a command line of tools/results.py."""
    with one_line_errors():
        if args.curves and args.curves.suffix not in (".png", ".pdf", ".svg"):
            raise UserError(f"--curves {args.curves} must end in .png, .pdf, .svg.")
        runs = [read_finished(folder) for folder in args.input]
        notes = without_partner(runs)
        for note in notes.values():
            print(note, file=sys.stderr)
        groups = group_runs([run for run in runs if run.folder not in notes])
        alone = [run for run in runs if run.folder in notes]
        page = filled_in(args.update, groups) if args.update else b""
        table = format_table([*result_table(groups), *single_rows(alone)], args.format)
        if args.output:
            args.output.write_text(table, encoding="utf-8")
        else:
            print(table, end="")
        if args.curves:
            plot_curves([*groups, *({blocks_of(run.cfg): [run]} for run in alone)]).savefig(
                args.curves, dpi=150
            )
        if args.update:
            args.update.write_bytes(page)


def filled_in(path: Path, groups: list[Group]) -> bytes:
    """A Markdown file with its tables; a UserError for a missing, unknown or open place and an AP of nan."""
    text = path.read_bytes().decode()  # with its own line ends
    places = [match[2] for match in _PLACE.finditer(text)]
    if not places or len(places) != text.count("<!-- results:"):
        lines = " or ".join(f"<!-- results:{place} -->" for place in PLACES)
        raise UserError(f"{path} needs places for tables: a line {lines}, closed by <!-- /results -->.")
    trained: dict[str, list[Group]] = {place: [] for place in places}
    for group in groups:
        for run in chain(*group.values()):
            if any(map(np.isnan, scores_of(run).values())):
                raise UserError(f"{run.folder} has an AP of nan, which is no result. Train for longer.")
        first = group[BASELINE][0]
        place = next(place for place, (score, _) in PLACES.items() if score in scores_of(first))
        if place not in trained:
            raise UserError(f"{path} has no place <!-- results:{place} --> for {first.folder}.")
        trained[place].append(group)
    pages = {k: format_table(result_table(its, PLACES[k][1]), "markdown") for k, its in trained.items()}
    return _PLACE.sub(lambda match: match[1] + pages[match[2]] + match[3], text).encode()
