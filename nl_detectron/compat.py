"""What differs between Detectron2 0.5 and main, and nothing else."""

from detectron2.engine import DefaultTrainer


def checkpoint_optimizer(trainer: DefaultTrainer) -> None:
    """Let the trainer's checkpoints hold the optimizer's state (momentum), so that a resume has it.

    Main saves it within the trainer's own state; 0.5 does not save it at all.
    """
    if "_trainer" not in trainer.state_dict():
        trainer.checkpointer.add_checkpointable("optimizer", trainer.optimizer)
