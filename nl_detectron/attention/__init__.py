"""What positions attend to: rows of the matrix, where they lie in the image, and pictures of them."""

from . import queries
from .grid import Grid
from .observe import Field, Observation, observe
from .page import attention_page
from .pictures import draw_queries
from .rows import attention_rows, query_dependence

__all__ = [
    "Field",
    "Grid",
    "Observation",
    "attention_page",
    "attention_rows",
    "draw_queries",
    "observe",
    "queries",
    "query_dependence",
]
