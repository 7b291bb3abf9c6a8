"""What several tests share: light models, small data sets, and the real COCO subset if there is one."""

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data.detection_utils import read_image
from hypothesis import settings
from nl_detectron_shapes import datasets_root, register_shapes, write_shapes

from nl_detectron import model_zoo

os.environ["FVCORE_CACHE"] = tempfile.mkdtemp(prefix="nl_detectron_tests")  # not the user's own
atexit.register(shutil.rmtree, os.environ["FVCORE_CACHE"], ignore_errors=True)
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores

# Other cases every time; a failing one is printed with the decorator that repeats it.
settings.register_profile("quick", max_examples=40, deadline=None, print_blob=True)
settings.register_profile("thorough", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile("quick")
PROPERTY_CASES = "property cases"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Generator:
    """Note in a property's last report how many cases passed; reports come back from parallel workers too."""
    report = yield
    if call.when == "teardown":
        passing = re.findall(r"(\d+) passing", getattr(item, "hypothesis_statistics", ""))
        report.user_properties.append((PROPERTY_CASES, sum(map(int, passing))))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    cases = sum(dict(getattr(report, "user_properties", ())).get(PROPERTY_CASES, 0) for report in reports)
    if cases:
        terminalreporter.write_line(f"{cases} property cases passed")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU, as PyTorch tells it."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.cuda.init", Mock(side_effect=RuntimeError("No CUDA GPUs are available")))


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with small shapes, which are registered there."""
    root = tmp_path_factory.mktemp("datasets")
    write_shapes(root / "shapes", train=12, val=6, size=96)
    register_shapes(root)
    return root


@pytest.fixture(scope="session")
def coco_root() -> Path:
    """DETECTRON2_DATASETS, if it holds COCO 2017 in the layout Detectron2 expects."""
    root = datasets_root().resolve()
    if not (root / "coco" / "annotations" / "instances_val2017.json").is_file():
        pytest.skip("needs COCO 2017 below DETECTRON2_DATASETS")
    return root


@pytest.fixture(scope="session")
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    """(H, W, 3) uint8 BGR: an image of COCO val2017, or a drawn one where COCO is not there."""
    images = sorted((datasets_root() / "coco" / "val2017").glob("*.jpg"))
    if not images:
        images = sorted((request.getfixturevalue("shapes_root") / "shapes" / "val").glob("*.jpg"))
    return read_image(images[0], format="BGR")


@pytest.fixture
def mask_cfg() -> CfgNode:
    """A light Mask R-CNN with one non-local block, on the CPU."""
    return _light("mask_rcnn_R_18_FPN_nl_shapes.yaml")


@pytest.fixture
def keypoint_cfg() -> CfgNode:
    """A light Keypoint R-CNN with four non-local blocks in the head, on the CPU."""
    return _light("keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml")


def _light(name: str) -> CfgNode:
    cfg = model_zoo.get_config(f"quick_schedules/{name}")
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (96,), 96
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 1
    return cfg
