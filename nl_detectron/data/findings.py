"""What was found in a user's file: departures that were mended, and those for which it is refused."""

import reprlib
from collections import Counter
from dataclasses import dataclass

from nl_detectron.errors import UserError

Entry = dict[str, object]  # an image, a category or an object


class Findings:
    """Departures from a format by their kinds; `mended` counts those that have their one right value now, and
    `notices` say what was inferred.
    """

    def __init__(self) -> None:
        self.mended: Counter[str] = Counter()
        self.notices: list[str] = []
        self._refused: dict[tuple[str, str], list[str]] = {}

    @property
    def is_refused(self) -> bool:
        return bool(self._refused)

    def mend(self, kind: str) -> None:
        self.mended[kind] += 1

    def refuse(self, kind: str, remedy: str, example: object) -> None:
        self._refused.setdefault((kind, remedy), []).append(str(example))

    def check(self, file: str) -> None:
        """Raise one UserError for all that is refused, the first few of each kind with their count."""
        if not self._refused:
            return
        faults = []
        for (kind, remedy), examples in self._refused.items():
            listed = ", ".join(examples[:3]) + (", ..." if len(examples) > 3 else "")
            faults.append(f"{kind} ({len(examples)}: {listed}). {remedy}")
        raise UserError(f"{file} is refused. {' '.join(faults)}")

    def __str__(self) -> str:
        """A line for each mended kind; "" if there is none."""
        return "\n".join(f"  {count} x {kind}" for kind, count in self.mended.items())


@dataclass(slots=True)
class Place:
    """An object with its image, and how a message names it."""

    object: Entry
    image: Entry
    find: Findings

    def refuse(self, kind: str, remedy: str, value: object = "") -> None:
        where = f"annotation {self.object.get('id')} of {self.image['file_name']}"
        self.find.refuse(kind, remedy, f"{where}: {reprlib.repr(value)}" if value != "" else where)
