"""Tables within a Markdown file, between comments that name their places."""

import re
from collections.abc import Sequence
from pathlib import Path

from nl_detectron.errors import UserError
from nl_detectron.files import written_whole

from .pairing import Comparison
from .paper import TABLE_5, TABLE_6
from .tables import format_table, result_table

# What has to be evaluated for a place, the most special first, and the rows of the paper that belong there.
PLACES = {"keypoint": ("keypoints/AP", [*TABLE_6]), "mask": ("segm/AP", [*TABLE_5]), "box": ("bbox/AP", [])}
_BEGIN, _END = "<!-- results:", "<!-- /results -->"
_PLACE = re.compile(rf"({_BEGIN}(\w+) -->\n)(?:(?!{_BEGIN}).)*?({_END})", re.DOTALL)


def fill_in(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write the tables into their places in a Markdown file, with the paper's rows, trained or not.

    Raises:
        UserError: if a place is none of PLACES or has no end, or runs have no place in the file.
    """
    text = path.read_text(encoding="utf-8")
    found = [match[2] for match in _PLACE.finditer(text)]
    if not found or len(found) != text.count(_BEGIN) or not set(found) <= PLACES.keys():
        places = ", ".join(f"{_BEGIN}{place} -->" for place in PLACES)
        raise UserError(
            f"{path} must have places for tables, each between a line {places} and a line {_END}; "
            f"got {found or 'none'} of {text.count(_BEGIN)}."
        )
    tables: dict[str, list[Comparison]] = {place: [] for place in found}
    for comparison in comparisons:
        run = comparison.runs[0]
        place = next(place for place, (score, _) in PLACES.items() if score in run.scores)
        if place not in tables:
            raise UserError(f"{path} must have a place {_BEGIN}{place} --> for {run.folder}, and has none.")
        tables[place].append(comparison)

    def filled(match: re.Match[str]) -> str:
        rows = result_table(tables[match[2]], PLACES[match[2]][1])
        return f"{match[1]}{format_table(rows, 'markdown')}{match[3]}"

    with written_whole(path) as unfinished:
        unfinished.write_text(_PLACE.sub(filled, text), encoding="utf-8")
