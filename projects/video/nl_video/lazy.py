"""A LazyConfig and what a command line changes in it."""

from collections.abc import Sequence

from detectron2.config import LazyConfig
from hydra.errors import HydraException
from omegaconf import DictConfig

from nl_detectron.errors import UserError


def read_config(file: str, overrides: Sequence[str]) -> DictConfig:
    """The config in a .py file, with KEY=VALUE changed.

    Raises:
        UserError: for no file, or something else than KEY=VALUE.
    """
    if not file:
        raise UserError("--config-file is missing. Give one of projects/video/configs.")
    cfg = LazyConfig.load(file)
    try:
        return LazyConfig.apply_overrides(cfg, [*overrides])
    except (HydraException, KeyError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{' '.join(overrides)}: {reason}. Write KEY=VALUE, with keys of {file}.") from error
