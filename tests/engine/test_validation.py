"""The losses of test sets, computed within a training that does not notice."""

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from runs import MASK, STEPS, arguments, differences, load, registrations_forgotten, run_here
from torch import nn

from nl_detectron.data import register_coco
from nl_detectron.engine import validation
from nl_detectron.engine.validation import validation_losses


def losses_by_hand(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """One image after the other, by Detectron2's mapper for training, of a config that augments nothing."""
    cfg = cfg.clone()
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.MIN_SIZE_TRAIN = "none", (cfg.INPUT.MIN_SIZE_TEST,)
    cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MASK_FORMAT = cfg.INPUT.MAX_SIZE_TEST, "bitmask"
    mapper, model = DatasetMapper(cfg, is_train=True), copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    found = []
    for record in DatasetCatalog.get("shapes_val"):
        if record["annotations"]:
            torch.manual_seed(0)
            with torch.no_grad(), EventStorage(1):
                found.append({name: loss.item() for name, loss in model([mapper(record)]).items()})
    return {name: np.mean([losses[name] for losses in found]) for name in found[0]}


@pytest.fixture
def model(mask_cfg: CfgNode, shapes_root: Path) -> nn.Module:
    return build_model(mask_cfg)


def test_are_the_means_of_the_losses_in_training(mask_cfg: CfgNode, model: nn.Module) -> None:
    found = validation_losses(mask_cfg, model)
    expected = losses_by_hand(mask_cfg, model)
    assert found.pop("total_loss") == pytest.approx(sum(expected.values()))
    assert found == pytest.approx(expected, rel=1e-6)


def test_are_the_same_with_two_processes(
    mask_cfg: CfgNode, model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = validation_losses(mask_cfg, model)
    parts: list[object] = []

    def all_gather(part: object) -> list[object]:
        parts.append(part)
        return parts

    monkeypatch.setattr("detectron2.utils.comm.all_gather", all_gather)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        found = validation_losses(mask_cfg, model)
    assert found == pytest.approx(expected, rel=1e-6)
    assert all(images for _, images in parts)


def test_are_of_some_images_evenly_taken(mask_cfg: CfgNode, shapes_root: Path) -> None:
    everything = validation._records(mask_cfg, "shapes_val")
    mask_cfg.TEST.LOSS_IMAGES = 2
    assert len(everything) > 2
    assert validation._records(mask_cfg, "shapes_val") == [everything[0], everything[-1]]


def test_random_numbers_stay(mask_cfg: CfgNode, model: nn.Module) -> None:
    """Of a training whose own loader does not set them at each step."""
    before = torch.get_rng_state()
    validation_losses(mask_cfg, model)
    assert torch.get_rng_state().equal(before)


def test_sets_without_what_the_model_learns_have_none(
    mask_cfg: CfgNode, model: nn.Module, shapes_root: Path, tmp_path: Path
) -> None:
    """No masks, or no objects at all; the others are named then."""
    content = json.loads((shapes_root / "shapes/annotations/instances_val.json").read_text())
    with registrations_forgotten():
        for name in ("no_masks", "no_objects"):
            for each in content["annotations"]:
                each.pop("segmentation", None)
            if name == "no_objects":
                content["annotations"] = []
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
            register_coco(name, str(tmp_path / f"{name}.json"), str(shapes_root / "shapes/val"))
        mask_cfg.DATASETS.TEST = ("no_masks", "shapes_val", "no_objects")
        found = validation_losses(mask_cfg, model)
    assert {name.split("/")[0] for name in found} == {"shapes_val"}
    mask_cfg.DATASETS.TEST = ("shapes_val",)
    assert found["shapes_val/total_loss"] == validation_losses(mask_cfg, model)["total_loss"]


def test_are_of_the_images_that_a_training_takes(
    keypoint_cfg: CfgNode, shapes_root: Path, tmp_path: Path
) -> None:
    """Not of one without a visible keypoint, which would add a loss of 0 to the mean."""
    model = build_model(keypoint_cfg)
    expected = validation_losses(keypoint_cfg, model)
    content = json.loads((shapes_root / "shapes/annotations/person_keypoints_val.json").read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    person = content["annotations"][0]
    shutil.copytree(shapes_root / "shapes/val", tmp_path / "val")
    shutil.copy(tmp_path / "val" / names[person["image_id"]], tmp_path / "val" / "hidden.jpg")
    hidden = {"file_name": "hidden.jpg", "id": 1000, "width": 96, "height": 96}
    points = {"keypoints": [0] * len(person["keypoints"]), "num_keypoints": 0}
    content["images"].append(hidden)
    content["annotations"].append({**person, **points, "id": 1000, "image_id": 1000})
    (tmp_path / "hidden.json").write_text(json.dumps(content))
    with registrations_forgotten():
        register_coco("hidden", str(tmp_path / "hidden.json"), str(tmp_path / "val"))
        keypoint_cfg.DATASETS.TEST = ("hidden",)
        assert validation_losses(keypoint_cfg, model) == expected


def test_a_training_does_not_notice(trained: Path, shapes_root: Path, tmp_path: Path) -> None:
    """Weights, running statistics and momentum are the same to the bit; the losses are among the metrics."""
    run_here(*arguments(MASK, tmp_path, *STEPS, "TEST.EVAL_PERIOD", "1"))
    assert differences(load(tmp_path / "model_final.pth"), load(trained / "model_final.pth")) == []
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["validation/total_loss"] for line in metrics if "validation/total_loss" in line]
    assert len(set(losses)) == 2  # Detectron2 writes the last two of three that are less than 20 steps apart
    assert "validation/" not in (trained / "metrics.json").read_text()
