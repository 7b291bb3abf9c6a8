"""The forecast in the log of a run, and its refusal."""

import logging

import pytest
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from nl_detectron import forecast_non_local
from nl_detectron.engine import forecast as engine_forecast
from nl_detectron.engine.forecast import report_forecast
from nl_detectron.errors import UserError


def lines(cfg: CfgNode, caplog: pytest.LogCaptureFixture, training: bool) -> list[str]:
    with caplog.at_level(logging.INFO, logger="nl_detectron"):
        report_forecast(cfg, build_model(cfg), training)
    return [record.getMessage() for record in caplog.records if "blocks need" in record.getMessage()]


def test_a_line_for_each_kind_of_pass(mask_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    mask_cfg.TEST.AUG.ENABLED = True
    mask_cfg.INPUT.MAX_SIZE_TRAIN = mask_cfg.INPUT.MAX_SIZE_TEST = 150
    training, inference, augmented = lines(mask_cfg, caplog, training=True)
    assert "in training, for 2 images of 96 x 150" in training
    assert "in inference, for 1 image of 96 x 150" in inference
    assert "in test-time augmentation, for 3 images of 1200 x 4000" in augmented
    needed = forecast_non_local(build_model(mask_cfg), 1216, 4000, images=3)
    assert f"up to {needed.peak / 2**30:.2f} GiB and {needed.multiply_adds / 1e9:.1f} GMAC" in augmented


def test_images_that_are_not_resized(mask_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    mask_cfg.INPUT.MIN_SIZE_TEST = 0
    assert lines(mask_cfg, caplog, training=False) == []


def test_a_baseline_has_no_forecast(mask_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    mask_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    assert lines(mask_cfg, caplog, training=True) == []


def test_roi_heads_on_the_keypoint_model(keypoint_cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    keypoint_cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 64
    keypoint_cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION = 0.25
    training, _ = lines(keypoint_cfg, caplog, training=True)
    size = (-(-96 // 32) * 32, -(-keypoint_cfg.INPUT.MAX_SIZE_TRAIN // 32) * 32)
    needed = forecast_non_local(build_model(keypoint_cfg), *size, images=2, rois=16, training=True)
    assert f"{needed.multiply_adds / 1e9:.1f} GMAC" in training


def test_what_cannot_fit_is_refused(mask_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here by memory that is smaller than one map; 64 images with blocks in res2 do it for 24 GiB."""
    monkeypatch.setattr(engine_forecast, "_device_memory", lambda device: 2**14)
    message = r"MODEL.NON_LOCAL must fit the 0.0 GiB of cpu; its blocks alone need .* GiB and .* GMAC in "
    with pytest.raises(UserError, match=message + r"training, for 2 images .* Lower SOLVER.IMS_PER_BATCH"):
        report_forecast(mask_cfg, build_model(mask_cfg), training=True)


def test_over_half_of_the_memory_is_warned_of(
    mask_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = build_model(mask_cfg)
    size = (96, -(-mask_cfg.INPUT.MAX_SIZE_TEST // 32) * 32)
    peak = forecast_non_local(model, *size).peak
    monkeypatch.setattr(engine_forecast, "_device_memory", lambda device: int(1.5 * peak))
    with caplog.at_level(logging.WARNING, logger="nl_detectron"):
        report_forecast(mask_cfg, model, training=False)
    assert "over half the memory of cpu. Lower INPUT.MAX_SIZE_TEST" in caplog.text
