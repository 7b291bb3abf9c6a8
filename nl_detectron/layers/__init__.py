"""The non-local operation (Section 3 of the paper). Knows nothing of configs or registries."""

from .non_local import NonLocalBlock, check_block_arguments
from .pairwise import at_least_float32
