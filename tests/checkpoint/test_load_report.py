"""The load report in a run of train_net.py: in its log, and as a refusal under --eval-only."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from runs import MASK

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of
from nl_detectron.engine import Trainer, main

LOST = "backbone.fpn_lateral2.weight"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A baseline's checkpoint."""
    cfg = model_zoo.get_config(MASK)
    cfg.MODEL.DEVICE = "cpu"
    torch.save(build_model(baseline_of(cfg)).state_dict(), tmp_path / "baseline.pth")
    return tmp_path / "baseline.pth"


def lose_a_tensor(weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    del state[LOST]
    torch.save(state, weights)


def evaluate(weights: Path, output: Path, *flags: str) -> str:
    """Evaluate through the command line; the log."""
    options = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "OUTPUT_DIR", str(output)]
    main(["--config-file", MASK, "--eval-only", *flags, *options, "MODEL.WEIGHTS", str(weights)])
    return (output / "log.txt").read_text()


def test_a_baseline_is_evaluated_and_said_to_be_one(shapes_root: Path, weights: Path, tmp_path: Path) -> None:
    log = evaluate(weights, tmp_path / "output")
    assert f"Load report of {weights}:" in log
    assert "the checkpoint has no non-local tensor, so this is its baseline" in log
    assert "copypaste: Task: bbox" in log


def test_a_lost_tensor_stops_an_evaluation(shapes_root: Path, weights: Path, tmp_path: Path) -> None:
    lose_a_tensor(weights)
    with pytest.raises(
        SystemExit, match=r"^error: MODEL.WEIGHTS .* does not hold .*fpn_lateral2 \(1\).*--allow"
    ):
        evaluate(weights, tmp_path / "output")
    log = evaluate(weights, tmp_path / "allowed", "--allow-mismatch")
    assert "WRONG, missing in the checkpoint, so new: backbone.fpn_lateral2 (1)" in log
    assert "copypaste: Task: bbox" in log


def test_a_lost_tensor_is_a_warning_in_training(
    shapes_root: Path, weights: Path, mask_cfg: CfgNode, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lose_a_tensor(weights)
    mask_cfg.OUTPUT_DIR = str(tmp_path)
    mask_cfg.MODEL.WEIGHTS = str(weights)
    trainer = Trainer(mask_cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.checkpointer.report.missing == [LOST]
    assert {r.levelname for r in caplog.records if "Load report" in r.getMessage()} == {"WARNING"}
