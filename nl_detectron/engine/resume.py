"""What a training is continued from: its seed, and what is no longer as it was."""

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.utils import comm

import nl_detectron
from nl_detectron.checkpoint import last_whole_checkpoint

from .merging import flat_pairs

_OF_NO_EFFECT = {"OUTPUT_DIR", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS"}  # on a training that is resumed


def fix_seed(cfg: CfgNode, resume: bool) -> None:
    """Give a config without SEED one: that of the training that it resumes, or else a random one.

    Its log, config.yaml and checkpoints then tell it.
    """
    if cfg.SEED >= 0:
        return
    last = last_whole_checkpoint(Path(cfg.OUTPUT_DIR)) if resume else None
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
    """What a checkpoint says of the run that saved it."""
    return {"config": cfg.dump(), "processes": comm.get_world_size()}


def differences(saved: Mapping[str, object], cfg: CfgNode) -> Iterator[str]:
    """What was otherwise in the run that `saved` is the setting of, a phrase each."""
    now = setting(cfg)
    before, after = ({**_flat(s.get("config", "")), "processes": s.get("processes")} for s in (saved, now))
    for key in before.keys() & after.keys() - _OF_NO_EFFECT:
        if before[key] is not None and before[key] != after[key]:
            yield f"{key} was {before[key]} and is {after[key]}"


def _flat(config: str) -> dict[str, object]:
    return dict(flat_pairs(yaml.safe_load(config) or {}))


def describe_code() -> str:
    """The version of nl_detectron and, in a checkout, its git revision."""
    file = Path(nl_detectron.__file__)
    git = ["git", "-C", str(file.parent)]
    try:  # not the revision of a repository that an environment lies in
        subprocess.run([*git, "ls-files", "--error-unmatch", file.name], check=True, capture_output=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--dirty", "--abbrev=12"],
            check=True,
            capture_output=True,
            text=True,
        )
        revision = f"git revision {described.stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):
        revision = "not a git checkout"
    return f"nl_detectron {nl_detectron.__version__} ({revision})"
