"""What a training is continued from: its seed, and what has changed since."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

from nl_detectron.checkpoint import last_intact_checkpoint

from .config_loading import flat_pairs

_WITHOUT_EFFECT = {"OUTPUT_DIR", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS"}  # on a training that is resumed


def fix_seed(cfg: CfgNode, resume: bool) -> None:
    """Give a config without SEED one: that of the training that it resumes, or else a random one.

    Its log, config.yaml and checkpoints then tell it.
    """
    if cfg.SEED >= 0:
        return
    last = last_intact_checkpoint(Path(cfg.OUTPUT_DIR)) if resume else None
    frozen = cfg.is_frozen()
    cfg.defrost()
    seeds = comm.all_gather(_seed_of(last) if last else None)  # perhaps not all processes see the folder
    drawn = comm.shared_random_seed()
    cfg.SEED = drawn if seeds[0] is None else seeds[0]
    if frozen:
        cfg.freeze()


def _seed_of(path: Path) -> int | None:
    state = torch.load(path, map_location="cpu", mmap=True, weights_only=True).get("trainer", {})
    return _flat(state.get("config", "")).get("SEED")


def setting(cfg: CfgNode) -> dict[str, object]:
    """What a checkpoint records of the run that saved it."""
    return {"config": cfg.dump(), "processes": comm.get_world_size()}


def differences(saved: Mapping[str, object], cfg: CfgNode) -> Iterator[str]:
    """What was different in the run whose setting is `saved`, a phrase each."""
    now = setting(cfg)
    before, after = ({**_flat(s.get("config", "")), "processes": s.get("processes")} for s in (saved, now))
    for key in before.keys() & after.keys() - _WITHOUT_EFFECT:
        if before[key] is not None and before[key] != after[key]:
            yield f"{key} was {before[key]} and is {after[key]}"


def _flat(config: str) -> dict[str, object]:
    return dict(flat_pairs(yaml.safe_load(config) or {}))
