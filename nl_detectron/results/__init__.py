"""What finished trainings show: baseline and +NL side by side, as in Tables 5 and 6 of the paper."""

from .curves import check_format, draw_curves, plot_curves
from .markdown import fill_in, sort_into_places
from .pairing import Comparison, pair_runs
from .runs import Run, read_run
from .tables import FORMATS, format_table, result_table

__all__ = [
    "FORMATS",
    "Comparison",
    "Run",
    "check_format",
    "draw_curves",
    "fill_in",
    "format_table",
    "pair_runs",
    "plot_curves",
    "read_run",
    "result_table",
    "sort_into_places",
]
