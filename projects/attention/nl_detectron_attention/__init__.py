"""Attention maps of non-local blocks: pictures, and a page in which a person points at a position."""

from . import queries
from .page import attention_page
from .pictures import draw_queries

__all__ = ["attention_page", "draw_queries", "queries"]
