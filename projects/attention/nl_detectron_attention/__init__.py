"""Attention maps of non-local blocks: pictures, and a page in which a person points at a position."""

import nl_detectron  # noqa: F401  (before Detectron2: it silences warnings of its code)

from . import queries
from .page import attention_page
from .pictures import draw_queries

__all__ = ["attention_page", "draw_queries", "queries"]
