"""What finished trainings show: baseline and +NL side by side, as in Tables 5 and 6 of the paper."""

from .curves import check_format, curve_of, draw_curves, plot_curves, plot_variants
from .markdown import fill_in, find_places, replace_places, sort_into_places
from .pairing import Comparison, pair_runs
from .runs import Run, read_run
from .tables import FORMATS, format_table, mean_score, result_table

__all__ = [
    "FORMATS",
    "Comparison",
    "Run",
    "check_format",
    "curve_of",
    "draw_curves",
    "fill_in",
    "find_places",
    "format_table",
    "mean_score",
    "pair_runs",
    "plot_curves",
    "plot_variants",
    "read_run",
    "replace_places",
    "result_table",
    "sort_into_places",
]
