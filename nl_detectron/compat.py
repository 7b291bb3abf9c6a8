"""Differences between Detectron2 0.5 and main, and most uses of their private names."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.data.build import _train_loader_from_config, build_batch_data_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import DefaultTrainer, defaults
from detectron2.evaluation import coco_evaluation
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch.utils.data import Dataset, Sampler


def complete_checkpoints(trainer: DefaultTrainer) -> None:
    """Let checkpoints hold momentum and the scale of gradients, which main saves and 0.5 does not."""
    if "_trainer" in trainer.state_dict():
        return
    trainer.checkpointer.add_checkpointable("optimizer", trainer.optimizer)
    if trainer.cfg.SOLVER.AMP.ENABLED:
        trainer.checkpointer.add_checkpointable("grad_scaler", trainer._trainer.grad_scaler)


def with_gradient_scale(trainer: DefaultTrainer, state: Mapping[str, object]) -> Mapping[str, object]:
    """A trainer's state to load, with a new gradient scale if a float32 run saved it.

    Main's trainer for SOLVER.AMP.ENABLED refuses one without it; 0.5 has no scale in this state.
    """
    loop, inner = trainer._trainer, state.get("_trainer")
    if inner is None or not hasattr(loop, "grad_scaler"):
        return state
    return {**state, "_trainer": {"grad_scaler": loop.grad_scaler.state_dict(), **inner}}


def build_seeded_train_loader(
    *, dataset: list | Dataset, seed: int, sampler: Sampler | None = None, **arguments: object
) -> object:
    """`build_detection_train_loader` for a LazyConfig, with the data in the order of a YAML with this SEED.

    Main seeds only the order of a YAML with SEED itself. A negative `seed` is random.
    """
    if sampler is None and "seed" in inspect.signature(build_batch_data_loader).parameters:
        sampler = TrainingSampler(len(dataset), seed=seed if seed >= 0 else None)
    return build_detection_train_loader(dataset=dataset, sampler=sampler, **arguments)


def train_loader_arguments(cfg: CfgNode, mapper: Callable | None, seed: int) -> dict[str, object]:
    """The arguments of Detectron2's training loader for a config.

    Main takes the seed of the sampler from SEED, 0.5 draws it from numpy's generator.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SEED = seed
    np.random.seed(seed % 2**32)
    return _train_loader_from_config(cfg, mapper)


def create_local_process_group(processes: int) -> None:
    """Tell Detectron2 which processes share a machine: each `processes` of consecutive ranks. All call it."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    for first in range(0, comm.get_world_size(), processes):
        ranks = range(first, first + processes)
        group = dist.new_group(list(ranks))
        if comm.get_rank() in ranks:
            comm._LOCAL_PROCESS_GROUP = group


@contextmanager
def data_parallel_on_any_device() -> Iterator[None]:
    """Let DistributedDataParallel take the model's device. Detectron2 names the GPU of the local rank, but
    there may be none, or processes may share one.
    """
    original = defaults.create_ddp_model
    defaults.create_ddp_model = functools.partial(original, device_ids=None)
    try:
        yield
    finally:
        defaults.create_ddp_model = original


def use_compiled_coco_eval() -> None:
    """Let COCOEvaluator use faster-coco-eval where Detectron2's own compiled evaluation is missing.

    Both give the same AP. Without the package, pycocotools evaluates.
    """
    if coco_evaluation.COCOeval_opt is not COCOeval or not find_spec("faster_coco_eval"):
        return
    from faster_coco_eval.core.faster_eval_api import COCOeval as CompiledCOCOeval  # takes 0.1 s

    def evaluation(truth: COCO, detections: COCO, task: str) -> COCOeval:
        if not all(isinstance(key, int) and key >= 0 for key in (*truth.imgs, *truth.anns)):
            return COCOeval(truth, detections, task)  # the compiled one needs such ids
        truth.cat_img_map = truth.cats  # keypoints: the keys of this, of its own COCO, are the categories
        return CompiledCOCOeval(truth, detections, task)

    coco_evaluation.COCOeval_opt = evaluation
