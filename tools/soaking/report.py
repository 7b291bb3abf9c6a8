"""The table and the picture of a soak."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from .growth import Sample


def table(results: Mapping[str, object]) -> str:
    return tabulate(results.items(), ["what", "figure"], tablefmt="github")


def draw(samples: Sequence[Sample], kills: Sequence[float], path: Path) -> None:
    """Memory and files of the endless training over time, and the moments at which others were killed."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    start = samples[0].moment
    minutes = [(sample.moment - start) / 60 for sample in samples]
    above.plot(minutes, [sample.bytes / 1e6 for sample in samples])
    above.set(ylabel="resident memory, MB")
    below.plot(minutes, [sample.files for sample in samples])
    below.set(ylabel="open files", xlabel="minutes", ylim=(0, None))
    for axes in (above, below):
        for moment in kills:
            axes.axvline((moment - start) / 60, color="tab:red", linewidth=0.5, alpha=0.5)
    above.set_title(
        "A training that evaluates and saves every 25 steps; red: another one is killed beside it"
    )
    figure.savefig(path, dpi=120)
