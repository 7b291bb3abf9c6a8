"""Half precision: what computes in it, and what that changes."""

import copy
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from runs import KEYPOINT, arguments, load, run_here

from nl_detectron import get_cfg
from nl_detectron.engine import Trainer
from nl_detectron.engine.precision import check_precision
from nl_detectron.errors import UserError


@pytest.mark.slow
def test_keypoints_train_and_evaluate_in_bfloat16(shapes_root: Path, tmp_path: Path) -> None:
    half = ("SOLVER.AMP.PRECISION", "bfloat16")
    run_here(*arguments(KEYPOINT, tmp_path, *half, "SOLVER.MAX_ITER", "2", "SEED", "1"))
    state = load(tmp_path / "model_final.pth")["model"]
    assert all(value.dtype in (torch.float32, torch.int64) for value in state.values())
    assert all(value.isfinite().all() for value in state.values())
    assert (tmp_path / "inference" / "coco_instances_results.json").is_file()


@pytest.mark.slow
def test_training_evaluation_and_tta_compute_in_it(small_cfg: CfgNode) -> None:
    small_cfg.SOLVER.AMP.PRECISION, small_cfg.SOLVER.MAX_ITER = "bfloat16", 1
    small_cfg.TEST.AUG.MIN_SIZES = (64,)
    trainer = Trainer(small_cfg)
    trainer.checkpointer.save_to_disk = False
    seen = []
    for name in ("backbone.bottom_up.res4.0.conv1", "backbone.bottom_up.res4.non_local_1.theta"):
        module = trainer.model.get_submodule(name)
        module.register_forward_hook(
            lambda module, inputs, output: seen.append((module.training, output.dtype))
        )
    trainer.train()
    assert set(seen) == {(True, torch.bfloat16), (False, torch.bfloat16)}
    seen.clear()
    results = trainer.test_with_tta(small_cfg, trainer.model)
    assert set(seen) == {(False, torch.bfloat16)}
    assert set(results) == {"bbox_TTA", "segm_TTA"}
    assert (Path(small_cfg.OUTPUT_DIR) / "inference_TTA" / "coco_instances_results.json").is_file()


def test_an_error_ends_it(small_cfg: CfgNode) -> None:
    """Or all that follows in the process would compute in it."""
    small_cfg.SOLVER.AMP.PRECISION = "bfloat16"
    with pytest.raises(KeyError):
        Trainer.build_model(small_cfg).eval()([{}])
    assert not torch.is_autocast_enabled("cpu")


def test_a_copy_computes_in_it_too(small_cfg: CfgNode) -> None:
    """With its own weights: those of an average of models, say."""
    small_cfg.SOLVER.AMP.PRECISION = "bfloat16"
    copied = copy.deepcopy(Trainer.build_model(small_cfg).eval())
    for parameter in copied.parameters():
        parameter.detach().zero_()
    seen = []
    copied.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output["p2"]))
    with torch.no_grad():
        copied([{"image": torch.full((3, 64, 64), 9.0)}])
    (features,) = seen
    assert features.dtype == torch.bfloat16
    assert not features.any()


def test_without_it_the_model_is_detectron2s(small_cfg: CfgNode) -> None:
    model = Trainer.build_model(small_cfg)
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


@pytest.mark.parametrize(
    ("device", "scaled", "precision", "message"),
    [
        ("cpu", False, "float16", "it needs a GPU and SOLVER.AMP.ENABLED"),
        ("cuda", False, "float16", "it needs a GPU and SOLVER.AMP.ENABLED"),
        ("cuda", True, "float64", "must be 'float16', 'bfloat16' or ''; got 'float64'"),
    ],
)
def test_refused(device: str, scaled: bool, precision: str, message: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = device, scaled, precision
    with pytest.raises(UserError, match=f"^SOLVER.AMP.PRECISION .*{message}"):
        check_precision(cfg)


def test_an_evaluation_in_float16_needs_no_scaled_gradients(small_cfg: CfgNode) -> None:
    small_cfg.SOLVER.AMP.PRECISION = "float16"
    check_precision(small_cfg, trains=False)
    with pytest.raises(UserError, match="would lose small gradients"):
        Trainer(small_cfg)


def test_float16_with_scaled_gradients_is_for_gpus() -> None:
    cfg = get_cfg()
    cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.PRECISION = True, "float16"
    check_precision(cfg)
