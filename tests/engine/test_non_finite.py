"""A loss that is infinite or not a number ends a training before it changes the weights."""

from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from detectron2.config import CfgNode
from runs import MASK, arguments, refusal, run_here

from nl_detectron.engine import Trainer
from nl_detectron.errors import UserError

# A step that is far too large in the first step; the losses of the second one are inf or nan.
DIVERGING = "SOLVER.MAX_ITER 5 SOLVER.BASE_LR 1e30 SOLVER.WARMUP_ITERS 0 SOLVER.CLIP_GRADIENTS.ENABLED False"


@pytest.mark.slow
def test_a_training_that_diverges_says_where(shapes_root: Path, tmp_path: Path) -> None:
    """Detectron2's RPN stops in the forward pass."""
    message = refusal(run_here, *arguments(MASK, tmp_path, "SEED", "1", *DIVERGING.split()))
    assert message.startswith("error: The losses of step 1 are not finite: Predicted boxes or scores contain")
    assert message.count(".jpg") == 2
    assert "Lower SOLVER.BASE_LR or check the images." in message


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_loss_is_named_before_it_changes_anything(value: float, small_cfg: CfgNode) -> None:
    trainer = Trainer(small_cfg)
    bad = {"loss_mask": torch.tensor(value)}
    trainer.model.register_forward_hook(lambda module, inputs, losses: losses | bad, prepend=True)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    with pytest.raises(UserError, match=rf"The losses of step 0 are not finite: .*loss_mask.*{value}.*jpg"):
        trainer.train()
    assert all(p.equal(old) for p, old in zip(trainer.model.parameters(), before, strict=True))


def test_a_failed_last_step_is_not_evaluated(small_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Detectron2 would, of weights that are nowhere saved."""
    small_cfg.SOLVER.MAX_ITER = 1
    monkeypatch.setattr(Trainer, "test", tested := Mock(return_value={}))
    trainer = Trainer(small_cfg)
    trainer.train()
    tested.assert_called_once()
    trainer = Trainer(small_cfg)
    monkeypatch.setattr(trainer, "run_step", Mock(side_effect=OSError("No space left on device")))
    with pytest.raises(OSError, match="No space"):
        trainer.train()
    tested.assert_called_once()
