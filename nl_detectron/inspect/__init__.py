"""Looking into a model: what positions attend to, with pictures of it, and what the blocks cost."""

from . import queries
from .analysis import Counts, count_by_stage, extra_cost, total
from .grid import Grid
from .images import find_images, read_image, use_images
from .observe import Field, Observation, observe
from .pictures import describe, draw_queries, strongest
from .rows import attention_rows, query_dependence
