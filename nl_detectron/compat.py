"""What differs between Detectron2 0.5 and main, and nothing else."""

from detectron2.engine import DefaultTrainer


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
