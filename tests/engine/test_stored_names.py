"""Names that a training stores in its folder, and what reads them there."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from nl_detectron_shapes import CATEGORIES
from runs import MASK, STEPS, arguments, load, load_config, run_here

from nl_detectron.checkpoint import METADATA, saved_metadata
from nl_detectron.predictor import Predictor
from nl_detectron_cli.exporting.onnx_detector import metadata_of

NAMES = list(CATEGORIES)
UNKNOWN = ("DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('mine',)")  # data that are not here


def test_they_are_in_the_folder(trained: Path) -> None:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    record = yaml.safe_load(json.loads((trained / "run.json").read_text())["config"])
    for model in (config["MODEL"], record["MODEL"]):
        assert model["CLASS_NAMES"] == NAMES
        assert model["KEYPOINT_NAMES"] == []
    assert saved_metadata(str(trained / "model_final.pth")) == {"thing_classes": NAMES}


@pytest.mark.parametrize("config", [MASK, "config.yaml"])
def test_tools_need_no_data(config: str, trained: Path, tmp_path: Path) -> None:
    """From the checkpoint with the original config, and from config.yaml with a checkpoint without names."""
    weights = trained / "model_final.pth"
    if config == "config.yaml":
        content = load(weights)
        weights, config = tmp_path / "model.pth", str(trained / config)
        save_without_names(content, weights)
    cfg = load_config(*arguments(config, tmp_path), *UNKNOWN, "MODEL.WEIGHTS", str(weights))
    assert Predictor(cfg).metadata.thing_classes == NAMES
    assert metadata_of(cfg)["thing_classes"] == NAMES


def test_detectron2_loads_it(trained: Path) -> None:
    cfg = load_config(*arguments(MASK, trained))
    extra = DetectionCheckpointer(build_model(cfg)).load(str(trained / "model_final.pth"))
    assert extra[METADATA] == {"thing_classes": NAMES}


@pytest.mark.parametrize("config", [MASK, "config.yaml"])
def test_a_resume(config: str, trained: Path, copied: Path) -> None:
    """With the original config, and with the one that has the names; from a checkpoint without them, too."""
    (copied / "last_checkpoint").write_text("model_0000001.pth")
    file = copied / "model_0000001.pth"
    if config == "config.yaml":
        config = str(trained / "config.yaml")
        content = load(file)
        file.unlink()
        content["trainer"]["config"] = load_config(*arguments(MASK, trained), *STEPS).dump()
        save_without_names(content, file)
    run_here(*arguments(config, copied, "--resume", *STEPS))
    assert saved_metadata(str(copied / "model_final.pth")) == {"thing_classes": NAMES}


def test_names_of_another_count(dry_run: Callable[..., tuple[int, dict[str, str]]]) -> None:
    code, lines = dry_run("MODEL.CLASS_NAMES", "['a', 'b']")
    assert code == 1
    assert lines["config"].startswith(
        "FAIL  config: MODEL.CLASS_NAMES has 2 names, but MODEL.ROI_HEADS.NUM_CLASSES is 4."
    )


def save_without_names(content: dict[str, object], path: Path) -> None:
    content.pop(METADATA)
    torch.save(content, path)
