"""Looking into a model: what positions attend to, and what the blocks cost."""

from .analysis import Counts, count_by_stage, extra_cost, total
from .drawing import LabelVisualizer, picture_scale
from .grid import Grid
from .images import find_images, in_format, read_image, read_images, sort_by_size, use_images
from .observe import Field, Observation, observe
from .rows import attention_rows, query_dependence
