"""Resuming: the seed of the training, and what has changed since its checkpoint."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from nl_detectron.checkpoint import last_intact_checkpoint

from .config_loading import flat_pairs

# On a training that is resumed.
_WITHOUT_EFFECT = {"OUTPUT_DIR", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD"}


def fix_seed(cfg: CfgNode, resume: bool) -> None:
    """Give a config without SEED one: that of the training that it resumes, or else a random one.

    The log, config.yaml and the checkpoints record it.
    """
    if cfg.SEED >= 0:
        return
    last = last_intact_checkpoint(Path(cfg.OUTPUT_DIR)) if resume else None
    seed = None
    if last:
        state = torch.load(last, map_location="cpu", mmap=True, weights_only=True).get("trainer", {})
        seed = _flat(state).get("SEED")
    seed, drawn = comm.all_gather(seed)[0], comm.shared_random_seed()  # perhaps not all see the folder
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.SEED = drawn if seed is None else seed
    if frozen:
        cfg.freeze()


def setting(cfg: CfgNode) -> dict[str, object]:
    """What a checkpoint records of the run that saved it."""
    return {"config": cfg.dump(), "processes": comm.get_world_size()}


def differences(saved: Mapping[str, object], cfg: CfgNode) -> Iterator[str]:
    """What was different in the run whose setting is `saved`, a phrase each."""
    before, after = _flat(saved), _flat(setting(cfg))
    for key in before.keys() & after.keys() - _WITHOUT_EFFECT:
        if before[key] is not None and before[key] != after[key]:
            yield f"{key} was {before[key]} and is {after[key]}"


def _flat(setting: Mapping[str, object]) -> dict[str, object]:
    config = yaml.safe_load(setting.get("config", "")) or {}
    return {**dict(flat_pairs(config)), "processes": setting.get("processes")}
