"""What positions attend to: rows of the matrix, where they lie in the image, and pictures of them."""

from .grid import Grid
from .observe import Field, Observation, observe
from .rows import attention_rows, query_dependence

__all__ = ["Field", "Grid", "Observation", "attention_rows", "observe", "query_dependence"]
