"""Tables within a Markdown file, between comments that name their places."""

import math
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nl_detectron.errors import UserError
from nl_detectron.files import written_whole

from .pairing import Comparison
from .paper import TABLE_5, TABLE_6
from .tables import format_table, result_table

# What has to be evaluated for a place, the most special first, and the rows of the paper that belong there.
PLACES = {"keypoint": ("keypoints/AP", [*TABLE_6]), "mask": ("segm/AP", [*TABLE_5]), "box": ("bbox/AP", [])}
_BEGIN, _END = "<!-- results:", "<!-- /results -->"
_PLACE = re.compile(rf"({_BEGIN}(\w+) -->(\r?\n))(?:(?!{_BEGIN}).)*?({_END})", re.DOTALL)


def fill_in(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write the tables into their places in a Markdown file, with the paper's rows, trained or not.

    All else of the file stays: its mode, its line ends, and where it lies if `path` is a link to it.

    Raises:
        UserError: see `sort_into_places`.
    """
    sorted_runs = sort_into_places(path, comparisons)
    tables = {
        place: format_table(result_table(runs, PLACES[place][1]), "markdown")
        for place, runs in sorted_runs.items()
    }
    replace_places(path, tables)


def replace_places(path: Path, tables: Mapping[str, str]) -> None:
    """Write texts, which end with a newline, into the places of their names. All else of the file stays."""
    path = path.resolve()

    def filled(match: re.Match[str]) -> str:
        begin, place, line_end, end = match.groups()
        return begin + tables[place].replace("\n", line_end) + end

    with written_whole(path) as unfinished:
        unfinished.write_bytes(_PLACE.sub(filled, _read(path)).encode())
        shutil.copymode(path, unfinished)


def sort_into_places(path: Path, comparisons: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    """What goes into each place of a Markdown file.

    Raises:
        UserError: if the file is not UTF-8, a place is none of PLACES or has no end, or runs have no place in
            the file or an AP that is no number.
    """
    tables: dict[str, list[Comparison]] = {place: [] for place in find_places(path, PLACES)}
    for comparison in comparisons:
        run = comparison.runs[0]
        place = next(place for place, (score, _) in PLACES.items() if score in run.scores)
        if place not in tables:
            raise UserError(f"{path} must have a place {_BEGIN}{place} --> for {run.folder}, and has none.")
        _check_numbers(path, comparison)
        tables[place].append(comparison)
    return tables


def find_places(path: Path, known: Collection[str]) -> list[str]:
    """The names of the places that a Markdown file has.

    Raises:
        UserError: if it is not UTF-8, has none, or one that is not `known` or has no end.
    """
    text = _read(path)
    found = [match[2] for match in _PLACE.finditer(text)]
    if not found or len(found) != text.count(_BEGIN) or not set(found) <= set(known):
        places = ", ".join(f"{_BEGIN}{place} -->" for place in known)
        raise UserError(
            f"{path} must have places for tables, each between a line {places} and a line {_END}; "
            f"got {found or 'none'} of {text.count(_BEGIN)}."
        )
    return found


def _read(path: Path) -> str:
    """The text with its own line ends."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be UTF-8; byte {error.start} is not. Save it as UTF-8.") from None


def _check_numbers(path: Path, comparison: Comparison) -> None:
    """Refuse the AP of a model that detects nothing, as after a few steps: it is no result."""
    for run in (*comparison.baselines, *comparison.runs):
        for key, value in run.scores.items():
            if math.isnan(value):
                raise UserError(
                    f"{run.folder}: {key} must be a number to go into {path}; got nan. Train for longer."
                )
