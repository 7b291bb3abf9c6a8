"""What differs between Detectron2 0.5 and main, and nothing else."""

import inspect

from detectron2.data import build_detection_train_loader
from detectron2.data.build import build_batch_data_loader
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import DefaultTrainer
from torch.utils.data import Dataset, Sampler


def complete_checkpoints(trainer: DefaultTrainer) -> None:
    """Let the trainer's checkpoints hold what a resume needs beside the weights: the optimizer's state
    (momentum) and, in mixed precision, the scale of the gradients.

    Main saves both within the trainer's own state; 0.5 saves neither.
    """
    if "_trainer" in trainer.state_dict():
        return
    trainer.checkpointer.add_checkpointable("optimizer", trainer.optimizer)
    if trainer.cfg.SOLVER.AMP.ENABLED:
        trainer.checkpointer.add_checkpointable("grad_scaler", trainer._trainer.grad_scaler)


def build_seeded_train_loader(
    *, dataset: list | Dataset, seed: int, sampler: Sampler | None = None, **arguments: object
) -> object:
    """`build_detection_train_loader` for a LazyConfig, with the data in the order of a YAML with this SEED.

    Main seeds the order of a YAML with SEED itself; 0.5, and the LazyConfigs of both, draw another seed from
    the generator that SEED has seeded.

    Args:
        dataset, sampler, arguments: Detectron2's own.
        seed: as SEED, or `train.seed`; random if it is negative.
    """
    if sampler is None and "seed" in inspect.signature(build_batch_data_loader).parameters:
        sampler = TrainingSampler(len(dataset), seed=seed if seed >= 0 else None)
    return build_detection_train_loader(dataset=dataset, sampler=sampler, **arguments)
