"""The non-local operation (Section 3 of the paper). Knows nothing of configs or registries."""

from .forecast import Forecast, forecast_block
from .non_local import NonLocalBlock, check_block_arguments

__all__ = ["Forecast", "NonLocalBlock", "check_block_arguments", "forecast_block"]
