"""A light Mask R-CNN for the tests that need a detector."""

import pytest
import torch
from detectron2.config import CfgNode

from nl_detectron import model_zoo


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def mask_cfg() -> CfgNode:
    """With one non-local block in res4, on the CPU."""
    cfg = model_zoo.get_config("quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml")
    cfg.MODEL.DEVICE = "cpu"
    return cfg
