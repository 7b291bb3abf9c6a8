"""What finished trainings of the matrix show: tables in a Markdown file, and pictures beside it."""

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from nl_detectron.files import written_whole
from nl_detectron.results import Run, find_places, replace_places

from .chance import chance_table
from .drawings import draw_attention, draw_curves
from .folder import Experiment, read_all
from .matrix import GROUPS, Arm, trainings
from .seeing import Seen, look_at_all
from .tables import attention_table, group_table


def write_report(experiment: Experiment, file: Path) -> None:
    """Fill the places of a Markdown file, and draw the pictures.

    Args:
        file: it has places <!-- results:NAME --> of some of these names: summary, chance, attention, and
            those of GROUPS.

    Raises:
        UserError: if it has others or none, or if there is nothing to report.
    """
    found = find_places(file, ("summary", *GROUPS, "chance", "attention"))
    runs = read_all(experiment)
    arms = {arm: dict(_watched(arm, by_seed)) for arm, by_seed in runs.items()}
    writers = {name: partial(group_table, experiment, group, arms) for name, group in GROUPS.items()}
    writers |= {
        "summary": partial(summary, experiment, runs),
        "chance": partial(chance_table, experiment.datasets),
        "attention": partial(attention_table, arms),
    }
    replace_places(file, {place: writers[place]() + "\n" for place in found})
    _save(draw_curves(runs), file.with_name(f"{file.stem}_curves.png"))
    for name, figure in draw_attention(runs):
        _save(figure, file.with_name(f"{file.stem}_attention_{name}.jpg"))


def _watched(arm: Arm, runs: dict[int, Run]) -> Iterator[tuple[int, tuple[Run, Seen]]]:
    for seed, run in tqdm(runs.items(), desc=f"looking at {arm.path}"):
        yield seed, (run, look_at_all(run))


def _save(figure: Figure, file: Path) -> None:
    with written_whole(file) as unfinished:
        figure.savefig(unfinished, format=file.suffix[1:], dpi=80)


def summary(experiment: Experiment, runs: dict[Arm, dict[int, Run]]) -> str:
    """How much of the matrix there is, of what code, and how long it took."""
    every = [run for by_seed in runs.values() for run in by_seed.values()]
    code = sorted(frozenset.union(*(run.code for run in every)))
    text = (
        f"{len(every)} of the {len(trainings())} trainings of the matrix are finished, each with "
        f"{experiment.train} far and {experiment.train} near pictures; code: {', '.join(code)}."
    )
    if experiment.keys:
        text += f" All have {' '.join(experiment.keys)}."
    seconds = [run.seconds for run in every if run.seconds is not None]  # None: it was interrupted
    if seconds:
        each = timedelta(seconds=round(np.median(seconds)))
        text += f" One took {each} (the median of the {len(seconds)} that were not interrupted)."
    return text
