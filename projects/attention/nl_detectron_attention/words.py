"""What the figures of a block say, in words."""

from collections.abc import Sequence

import numpy as np

from nl_detectron.inspect import Field

# Query dependence is 0 if all positions attend alike and about 1/2 if no two do. At a tenth of that, the maps
# of two positions have a mean cosine of 0.9: the picture of one is the picture of all.
ALIKE = 0.05
# In the demo's far pictures (projects/far_context), whose labels only the block can tell, it changes x by
# 4 to 8 %.
LITTLE = 0.02


def averages(fields: Sequence[Field]) -> dict[str, tuple[float, float]]:
    """By block its query dependence and its change of x: the means over its fields."""
    figures: dict[str, list[tuple[float, float]]] = {}
    for field in fields:
        figures.setdefault(field.name, []).append((field.query_dependence, field.change))
    return {name: tuple(np.mean(values, axis=0).tolist()) for name, values in figures.items()}


def in_words(query_dependence: float, change: float) -> str:
    """One sentence or two on whether the maps of a block are worth looking at."""
    changes = f"This block changes x by {100 * change:.1f} %"
    depends = f"(query dependence {query_dependence:.2f})"
    sentences = []
    if change < LITTLE:
        sentences.append(f"{changes}: its map says little.")
    if query_dependence < ALIKE:
        sentences.append(f"This map is nearly the same for every position {depends}.")
    return " ".join(sentences) or f"{changes}, and positions attend to different places {depends}."
