"""A loss that is infinite or not a number ends a training, and leaves what repeats the step."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.engine import DefaultTrainer
from detectron2.utils import comm
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.errors import UserError


def check_losses(model: nn.Module, inputs: tuple[Sequence], outputs: Mapping[str, Tensor] | Tensor) -> None:
    """A forward hook that finds what Detectron2's own check finds, but in the process that has it."""
    losses = outputs if isinstance(outputs, Mapping) else {"total_loss": outputs}
    if model.training and not sum(losses.values()).isfinite().all():
        wrong = [f"{name} is {loss.item()}" for name, loss in losses.items() if not loss.isfinite().all()]
        raise FloatingPointError(", ".join(wrong) or "their sum is not")


def stopped_by(error: FloatingPointError, trainer: DefaultTrainer, images: Sequence[str]) -> UserError:
    """The error to end a training with; a folder gets the state before the step (training reads no statistics
    of BN) and the names of the images.
    """
    process = f"_process_{comm.get_rank()}" if comm.get_world_size() > 1 else ""
    folder = Path(trainer.cfg.OUTPUT_DIR) / f"non_finite_{trainer.iter}{process}"
    folder.mkdir(parents=True, exist_ok=True)
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    (folder / "config.yaml").write_text(cfg.dump())
    reason = " ".join(str(error).split()).rstrip(".")
    step = {"step": trainer.iter, "reason": reason, "images": images}
    (folder / "step.json").write_text(json.dumps(step, indent=1))
    made = trainer.checkpointer
    saver = Checkpointer(made.model, str(folder), save_to_disk=True, **made.checkpointables)
    trainer.iter -= 1  # the last step that this state has seen
    saver.save("model_before", iteration=trainer.iter)
    trainer.iter += 1
    return UserError(
        f"the losses of step {trainer.iter} are not finite: {reason} (images: {', '.join(images)}). Lower "
        f"SOLVER.BASE_LR or check the images. --config-file {folder / 'config.yaml'} --resume repeats the step."
    )
