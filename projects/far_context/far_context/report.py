"""The report: tables in a Markdown file, between comments that name their places, and pictures beside it."""

import re
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

from .chance import chance_table
from .drawings import draw_attention, draw_curves
from .folder import Experiment, draw_pictures
from .matrix import GROUPS, trainings
from .results import Results
from .start import start_table
from .tables import attention_table, group_table, trainings_table

NAMES = ("summary", *GROUPS, "chance", "attention", "start", "trainings")  # of the places in a page
_PLACE = re.compile(r"(<!-- results:(\w+) -->\n)(?:(?!<!-- results:).)*?(<!-- /results -->)", re.DOTALL)


def write_report(experiment: Experiment, results: Results, file: Path) -> None:
    """Fill the places of a Markdown file, and draw the pictures into docs/ beside it.

    Args:
        file: a place in it is all between the lines <!-- results:NAME --> and <!-- /results -->, with a NAME
            of NAMES. The rest of the file stays as it is.

    Raises:
        UserError: for a file without places, an unknown or unclosed place, or if there are no results.
    """
    text = file.read_text(encoding="utf-8")
    places = _places_in(file, text)
    if not results:
        raise UserError(f"--output {experiment.output} holds no finished trainings.")
    if {"chance", "start"} & places:
        draw_pictures(experiment, "one")
    makers = {name: partial(group_table, experiment, group, results) for name, group in GROUPS.items()}
    makers["summary"] = partial(summary, experiment, results)
    makers["chance"] = partial(chance_table, experiment.datasets)
    makers["attention"] = partial(attention_table, results)
    makers["trainings"] = partial(trainings_table, results)
    makers["start"] = partial(start_table, experiment)
    tables = {name: makers[name]() for name in places}
    with atomic_write(file) as unfinished:
        filled = _PLACE.sub(lambda match: f"{match[1]}{tables[match[2]]}\n{match[3]}", text)
        unfinished.write_text(filled, encoding="utf-8")
    pictures = file.with_name("docs")
    pictures.mkdir(exist_ok=True)
    _save(draw_curves(results), pictures / "curves.png")
    for name, figure in draw_attention(experiment):
        _save(figure, pictures / f"attention_{name}.jpg")


def _places_in(file: Path, text: str) -> set[str]:
    places = [match[2] for match in _PLACE.finditer(text)]
    unknown = set(places) - set(NAMES)
    if unknown or not places or len(places) < text.count("<!-- results:"):
        found = f"{len(places)} complete ones" + "".join(f", unknown: {name}" for name in sorted(unknown))
        raise UserError(
            f"{file} needs places, lines <!-- results:NAME --> and <!-- /results -->, with a NAME of "
            f"{', '.join(NAMES)}; found {found}."
        )
    return {*places}


def _save(figure: Figure, file: Path) -> None:
    with atomic_write(file) as unfinished:
        figure.savefig(unfinished, dpi=80)
        if file.suffix == ".png":  # lines in some colors, which a palette holds in a third of the bytes
            Image.open(unfinished).convert("RGB").quantize(256).save(unfinished, "png", optimize=True)


def summary(experiment: Experiment, results: Results) -> str:
    """How much of the matrix is finished, and how long a training took."""
    finished = results.values()
    text = f"{len(finished)} of the {len(trainings())} trainings of the matrix are finished, each with "
    text += f"{experiment.train} far and {experiment.train} near pictures."
    if experiment.keys:
        text += f" All have {' '.join(experiment.keys)}."
    if seconds := [each.seconds for each in finished if each.seconds is not None]:  # None: it was killed
        median = timedelta(seconds=round(np.median(seconds)))
        text += f" One took {median} (the median of the {len(seconds)} that were not killed)."
    return text
