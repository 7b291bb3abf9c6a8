"""The losses of test sets, computed within a training that does not notice."""

import copy
import json
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


def test_are_of_some_images_evenly_taken(mask_cfg: CfgNode, model: nn.Module) -> None:
    everything = validation_losses(mask_cfg, model)
    mask_cfg.TEST.LOSS_IMAGES = 2
    parts = validation_losses(mask_cfg, model)
    assert parts.keys() == everything.keys()
    assert parts != everything


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


def test_retinanet_does_not_notice(mask_cfg: CfgNode, shapes_root: Path) -> None:
    """Its training keeps a running mean of the number of objects."""
    mask_cfg.MODEL.META_ARCHITECTURE, mask_cfg.MODEL.MASK_ON = "RetinaNet", False
    mask_cfg.MODEL.BACKBONE.NAME = "build_nl_retinanet_resnet_fpn_backbone"
    mask_cfg.MODEL.RESNETS.OUT_FEATURES = mask_cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    mask_cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[16], [32], [64], [128], [256]]
    model = build_model(mask_cfg).train()
    state, objects = copy.deepcopy(model.state_dict()), getattr(model, "loss_normalizer", None)
    drawn = torch.random.get_rng_state()
    assert validation_losses(mask_cfg, model)["total_loss"] > 0
    assert torch.random.get_rng_state().equal(drawn)
    assert getattr(model, "loss_normalizer", None) == objects  # main has it after its first step
    assert all(value.equal(state[name]) for name, value in model.state_dict().items())
    assert model.training


def test_a_training_does_not_notice(trained: Path, shapes_root: Path, tmp_path: Path) -> None:
    """Weights, running statistics and momentum are the same to the bit; the losses are among the metrics."""
    run_here(*arguments(MASK, tmp_path, *STEPS, "TEST.EVAL_PERIOD", "1"))
    assert differences(load(tmp_path / "model_final.pth"), load(trained / "model_final.pth")) == []
    metrics = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    losses = [line["validation/total_loss"] for line in metrics if "validation/total_loss" in line]
    assert len(set(losses)) == 2  # Detectron2 writes the last two of three that are less than 20 steps apart
    assert "validation/" not in (trained / "metrics.json").read_text()
