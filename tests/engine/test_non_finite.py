"""A loss that is not finite: what is said, what is saved, and that it can be seen again."""

import json
from pathlib import Path

import pytest
import torch
from runs import MASK, arguments, differences, load, run_here

from nl_detectron.engine import Trainer
from nl_detectron.engine.non_finite import check_losses

# A step that is far too large in the first step; the losses of the second one are inf or nan.
DIVERGING = (
    "SEED 1 SOLVER.MAX_ITER 5 SOLVER.BASE_LR 1e30 SOLVER.WARMUP_ITERS 0 SOLVER.CLIP_GRADIENTS.ENABLED False"
).split()


def stopped(*argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        run_here(*argv)
    return ended.value.code


def test_diverged_proposals_are_reported_and_can_be_seen_again(shapes_root: Path, tmp_path: Path) -> None:
    """Detectron2's RPN stops in the forward pass."""
    output = tmp_path / "run"
    message = stopped(*arguments(MASK, output, *DIVERGING))
    folder = output / "non_finite_1"
    step = json.loads((folder / "step.json").read_text())
    assert step["step"] == 1
    assert step["reason"] == "Predicted boxes or scores contain Inf/NaN. Training has diverged"
    assert len(step["images"]) == 2
    images, config = ", ".join(step["images"]), folder / "config.yaml"
    assert message == (
        f"error: the losses of step 1 must be finite; {step['reason']} (of {images}). Lower SOLVER.BASE_LR, "
        f"or see what is wrong with the images. --config-file {config} --resume repeats this step."
    )
    assert "\n" not in message

    again = stopped("--config-file", str(folder / "config.yaml"), "--resume")
    repeated = folder / "non_finite_1"
    assert again == message.replace(str(folder), str(repeated))
    before, then = (load(path / "model_before.pth") for path in (folder, repeated))
    differing = differences(before, then)
    assert differing  # of BN, by a forward pass each
    assert all("running_" in key or "num_batches" in key for key in differing)


@pytest.mark.parametrize(
    "losses",
    [torch.tensor(float("nan")), {"one": torch.zeros(1), "another": torch.tensor(float("nan"))}],
    ids=["a tensor", "shapes"],
)
def test_whatever_detectron2_takes_for_losses(losses: object) -> None:
    with pytest.raises(FloatingPointError, match="is nan"):
        check_losses(torch.nn.Identity(), (), losses)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_is_named_before_it_changes_anything(
    value: float, shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_model, initial = Trainer.build_model.__func__, {}

    def with_a_bad_loss(cls: type[Trainer], cfg: object) -> torch.nn.Module:
        model = build_model(cls, cfg)
        bad = {"loss_mask": torch.tensor(value)}
        model.register_forward_hook(lambda module, inputs, losses: losses | bad)
        initial.update({name: parameter.detach().clone() for name, parameter in model.named_parameters()})
        return model

    monkeypatch.setattr(Trainer, "build_model", classmethod(with_a_bad_loss))
    message = stopped(*arguments(MASK, tmp_path, "SEED", "1", "SOLVER.MAX_ITER", "5"))
    assert f"the losses of step 0 must be finite; loss_mask is {value} (of " in message
    saved = load(tmp_path / "non_finite_0" / "model_before.pth")
    assert saved["iteration"] == -1
    assert all(saved["model"][name].equal(parameter) for name, parameter in initial.items())
