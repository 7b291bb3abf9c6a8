"""What a run prints: some twenty lines, the losses, and the outcome. log.txt has everything."""

import logging
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from nl_detectron.files import UNFINISHED
from nl_detectron_cli.arguments import as_typed

from .run_record import describe_code

_SHOWN = ("nl_detectron", "detectron2.utils.events")  # the second logs losses
_VALIDATION = re.compile(r"validation/\S+: \S+\s+")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def set_up_loggers(folder: str, rank: int) -> None:
    """Make the loggers of Detectron2 before its default_setup does, which then uses these.

    The console shows warnings, losses, and what nl_detectron says. log.txt has no escape codes.
    """
    loggers = [
        setup_logger(folder, distributed_rank=rank),
        setup_logger(folder, distributed_rank=rank, name="fvcore"),
    ]
    for logger in [*loggers, setup_logger(folder, distributed_rank=rank, name="nl_detectron")]:
        for handler in logger.handlers:
            handler.addFilter(_is_of_interest)
            if handler.stream is sys.stdout:
                handler.addFilter(_is_shown)
            else:
                handler.setFormatter(_Plain(handler.formatter._fmt, handler.formatter.datefmt))


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _COLOURS.sub("", super().format(record))


def _is_shown(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or (
        record.levelno >= logging.INFO and record.name.startswith(_SHOWN)
    )


def _is_of_interest(record: logging.LogRecord) -> bool:
    """Leave out the temporary names of atomic writing, which look like failures, and in the lines of losses
    the last ones of the validation, which Detectron2 repeats."""
    if record.name == "detectron2.utils.events":
        record.msg = _VALIDATION.sub("", record.msg)
    return UNFINISHED not in record.getMessage()


def describe_run(cfg: CfgNode, images: Mapping[str, int], trains: bool) -> str:
    """Lines on versions, device and data. `images` is how many a data set has."""
    device = cfg.MODEL.DEVICE
    if device.startswith("cuda"):
        device = f"{device} ({torch.cuda.get_device_name(device)})"
    elif device == "cpu":
        device = f"cpu (threads: {torch.get_num_threads()})"
    code = describe_code().removeprefix("nl_detectron ")
    versions = f"Detectron2 {detectron2.__version__}, PyTorch {torch.__version__}"
    sets = {"test": cfg.DATASETS.TEST}
    if trains:
        sets = {"train": cfg.DATASETS.TRAIN, **sets}
    lines = [
        f"nl_detectron {code}, {versions}, Python {platform.python_version()}",
        f"device: {device}; processes: {comm.get_world_size()}; SEED {cfg.SEED}",
    ]
    for use, names in sets.items():
        listed = [f"{name} ({images[name]} images)" if name in images else name for name in names]
        lines.append(f"{use}: {', '.join(listed) or 'nothing'}")
    return "\n  ".join([*lines, f"output: {cfg.OUTPUT_DIR}, with more in log.txt"])


def describe_schedule(cfg: CfgNode, start: int) -> str:
    """A line on steps, learning rate and what is done how often; of a config as it is scaled."""
    solver, period = cfg.SOLVER, cfg.TEST.EVAL_PERIOD
    batches = f" in {solver.ACCUMULATE} batches" if solver.ACCUMULATE > 1 else ""
    evaluated = f"every {period} steps" if period else "at the end"
    lower = ", ".join(str(step) for step in solver.STEPS if step < solver.MAX_ITER) or "no step"
    has_steps = solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR"
    rate = f"lower after {lower}" if has_steps else solver.LR_SCHEDULER_NAME
    return (
        f"schedule: steps {start} to {solver.MAX_ITER} of {solver.IMS_PER_BATCH} images{batches}; "
        f"learning rate {solver.BASE_LR:g}, {rate}; evaluation {evaluated}; "
        f"a checkpoint every {solver.CHECKPOINT_PERIOD} steps"
    )


def where_it_is(cfg: CfgNode) -> str:
    """What to do with a finished training."""
    folder = Path(cfg.OUTPUT_DIR)
    weights = folder / "model_final.pth"
    best = folder / "model_best.pth"
    found = f"{weights}, and the best in {best}" if cfg.TEST.BEST_METRIC and best.exists() else str(weights)
    demo = as_typed("python tools/demo.py")
    command = f"{demo} --config-file {folder / 'config.yaml'} --input IMAGES --output drawn"
    return f"The weights are in {found}. To look at what they detect:\n  {command} MODEL.WEIGHTS {weights}"
