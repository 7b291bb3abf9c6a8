"""SOLVER.ACCUMULATE: a step on the mean gradient of several batches, one after the other.

n batches on each of P processes are the batches of n P processes (see `data.loaders`), and the gradient is
the same mean. What differs is what a process keeps between its batches: a BN layer updates its running
statistics n times a step, with every batch.
"""

import time
from contextlib import nullcontext

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, SimpleTrainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from nl_detectron.data.loaders import images_per_batch
from nl_detectron.errors import UserError


def accumulated_step(loop: SimpleTrainer, batches: int) -> None:
    """Do what `loop.run_step` does, on the mean losses of the next `batches` batches.

    `loop` may be Detectron2's AMPTrainer: the batches share one gradient scale, and one check of the sum.
    """
    scaler = getattr(loop, "grad_scaler", None)
    precision = torch.autocast("cuda", getattr(loop, "precision", torch.float16)) if scaler else nullcontext()
    loop.optimizer.zero_grad()
    means: dict[str, Tensor] = {}
    data_time = 0.0
    for number in range(1, batches + 1):
        start = time.perf_counter()
        data = next(loop._data_loader_iter)
        data_time += time.perf_counter() - start
        waits = number < batches and isinstance(loop.model, DistributedDataParallel)
        with loop.model.no_sync() if waits else nullcontext():  # processes exchange gradients once a step
            with precision:
                losses = loop.model(data)
                if isinstance(losses, Tensor):
                    losses = {"total_loss": losses}
                shares = {name: loss / batches for name, loss in losses.items()}
                share = sum(shares.values())
            (scaler.scale(share) if scaler else share).backward()
        means = {name: means.get(name, 0) + loss.detach() for name, loss in shares.items()}
    loop._write_metrics(means, data_time)
    if scaler:
        scaler.step(loop.optimizer)
        scaler.update()
    else:
        loop.optimizer.step()


def check_batches(cfg: CfgNode, processes: int) -> None:
    """Refuse a config whose images the batches of a step cannot share."""
    if cfg.SOLVER.ACCUMULATE > 1 and cfg.SOLVER.REFERENCE_WORLD_SIZE not in (0, processes):
        raise UserError(
            "SOLVER.ACCUMULATE keeps the schedule of more processes, and SOLVER.REFERENCE_WORLD_SIZE "
            "(--auto-scale) changes it. Set only one."
        )
    if (reference := cfg.SOLVER.REFERENCE_WORLD_SIZE) and cfg.SOLVER.IMS_PER_BATCH % reference:
        raise UserError(
            f"--auto-scale needs SOLVER.IMS_PER_BATCH to be a multiple of the {reference} processes "
            f"(SOLVER.REFERENCE_WORLD_SIZE) that it is meant for; got {cfg.SOLVER.IMS_PER_BATCH}."
        )
    cfg = DefaultTrainer.auto_scale_workers(cfg, processes)
    images_per_batch(cfg.SOLVER.IMS_PER_BATCH, processes, cfg.SOLVER.ACCUMULATE)
