"""Resuming: the seed of the training, what has changed since its checkpoint, and those to keep."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from zipfile import is_zipfile

import yaml
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.engine.hooks import PeriodicCheckpointer
from detectron2.utils import comm

from nl_detectron.checkpoint import last_intact_checkpoint, load_safely
from nl_detectron.errors import UserError

from .config_loading import flat_pairs
from .run_record import checkpoints_in

# On a training that is resumed.
_WITHOUT_EFFECT = {"OUTPUT_DIR", "MODEL.WEIGHTS", "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD"}
_WITHOUT_EFFECT |= {
    "SOLVER.REFERENCE_WORLD_SIZE",
    "SOLVER.CHECKPOINTS_KEPT",
    "VIS_PERIOD",
    "TEST.BEST_METRIC",
    "TEST.EXPECTED_RESULTS",
    "TEST.LOSS_IMAGES",
    "MODEL.CLASS_NAMES",
    "MODEL.KEYPOINT_NAMES",
}
# What --new-schedule may change. A longer training needs no flag.
_SCHEDULE = {f"SOLVER.{key}" for key in ("BASE_LR", "BASE_LR_END", "STEPS", "GAMMA", "LR_SCHEDULER_NAME")}
_SCHEDULE |= {f"SOLVER.{key}" for key in ("WARMUP_FACTOR", "WARMUP_ITERS", "WARMUP_METHOD", "NUM_DECAYS")}
_BATCHES = "processes x SOLVER.ACCUMULATE"
_ALLOWED = {"SOLVER.MAX_ITER", "MODEL.DEVICE", "SOLVER.AMP.ENABLED", "SOLVER.AMP.PRECISION"}


def fix_seed(cfg: CfgNode, resume: bool) -> None:
    """Give a config without SEED one: that of the training that it resumes, or else a random one.

    The log, config.yaml and the checkpoints record it.
    """
    if cfg.SEED >= 0:
        return
    last = last_intact_checkpoint(Path(cfg.OUTPUT_DIR)) if resume else None
    seed = None
    if last:
        seed = _flat(saved_setting(last)).get("SEED")
    seed, drawn = comm.all_gather(seed)[0], comm.shared_random_seed()  # perhaps not all see the folder
    frozen = cfg.is_frozen()
    cfg.defrost()
    cfg.SEED = drawn if seed is None else seed
    if frozen:
        cfg.freeze()


def setting(cfg: CfgNode, processes: int | None = None) -> dict[str, object]:
    """What a checkpoint records of the run that saved it."""
    return {"config": cfg.dump(), "processes": processes or comm.get_world_size()}


def saved_setting(checkpoint: Path) -> Mapping[str, object]:
    """What the checkpoint of a training records; {} for one of another trainer."""
    return load_safely(checkpoint, mmap=is_zipfile(checkpoint)).get("trainer", {})


def differences(
    saved: Mapping[str, object], cfg: CfgNode, processes: int | None = None
) -> Iterator[tuple[str, str]]:
    """What was different in the run whose setting is `saved`: keys, and a phrase for each."""
    before, after = _flat(saved), _flat(setting(cfg, processes))
    ignored = _WITHOUT_EFFECT if cfg.TEST.PRECISE_BN.ENABLED else _WITHOUT_EFFECT | {"TEST.EVAL_PERIOD"}
    for key in sorted(before.keys() & after.keys() - ignored):
        if before[key] is not None and before[key] != after[key]:
            yield key, f"{key} was {before[key]} and is {after[key]}"


def check_resume(
    saved: Mapping[str, object], cfg: CfgNode, new_schedule: bool, processes: int | None = None
) -> None:
    """Refuse to resume from a checkpoint with this setting into another training, naming what differs.

    `processes` are those that there will be, if it is asked before they run.
    """
    cfg = DefaultTrainer.auto_scale_workers(cfg, processes or comm.get_world_size())
    others = {key: text for key, text in differences(saved, cfg, processes) if _makes_another(key)}
    if new_schedule:
        others = {key: text for key, text in others.items() if key not in _SCHEDULE}
    if others:
        remedy = "Restore it, or start a new training from the weights: MODEL.WEIGHTS, without --resume."
        if others.keys() <= _SCHEDULE:
            remedy = "Restore it, or give --new-schedule if that is meant."
        raise UserError(
            f"--resume would not go on with the same training: {'; '.join(others.values())}. {remedy}"
        )


def _makes_another(key: str) -> bool:
    is_of_training = key.startswith(("MODEL.", "SOLVER.")) or key in ("DATASETS.TRAIN", _BATCHES)
    return is_of_training and not key.endswith("_TEST") and key not in _ALLOWED


def restart_schedule(trainer: DefaultTrainer, rates: Sequence[float]) -> None:
    """Replace what a checkpoint restored by the config's schedule, with these base rates of the groups."""
    for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
        group["lr"] = group["initial_lr"] = rate
    trainer.scheduler = trainer.build_lr_scheduler(trainer.cfg, trainer.optimizer)
    trainer.scheduler.last_epoch = trainer.start_iter
    for group, rate in zip(trainer.optimizer.param_groups, trainer.scheduler.get_lr(), strict=True):
        group["lr"] = rate


def _flat(setting: Mapping[str, object]) -> dict[str, object]:
    keys = dict(flat_pairs(yaml.safe_load(setting.get("config", "")) or {}))
    batches = keys.pop("SOLVER.ACCUMULATE", 1)  # on so many processes: 8 x 1 and 1 x 8 are the same training
    processes = setting.get("processes")
    return {**keys, _BATCHES: processes and processes * batches}


def keep_newest(hook: PeriodicCheckpointer, folder: Path, iteration: int) -> None:
    """Let Detectron2's hook keep the newest checkpoints of the whole training, resumed at `iteration`.

    By itself it knows those that it has saved.
    """
    if not (kept := hook.max_to_keep):
        return
    numbers = {path: path.stem.removeprefix("model_") for path in checkpoints_in(folder)}
    before = [path for path, number in numbers.items() if number.isdecimal() and int(number) < iteration]
    for path in before[:-kept]:
        path.unlink()
    hook.recent_checkpoints = [str(path) for path in before[-kept:]]
