"""Whole detectors: baseline checkpoints of every format are a warm start, and nothing crashes on
nothing."""

import itertools
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from nl_detectron.config import baseline_of


def save_pth(model: torch.nn.Module, folder: Path) -> Path:
    DetectionCheckpointer(model, str(folder)).save("baseline")
    return folder / "baseline.pth"


def save_zoo_pkl(model: torch.nn.Module, folder: Path) -> Path:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path = folder / "baseline.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "test"}))
    return path


def caffe2_name(name: str) -> str:
    """What Caffe2 calls a backbone parameter of Detectron2: res4.1.conv2.weight, res4_1_branch2b_w."""
    name = name.removeprefix("backbone.bottom_up.")
    suffix = {"norm.weight": "bn_s", "norm.bias": "bn_b", "weight": "w"}
    tail = next(tail for tail in suffix if name.endswith("." + tail))
    stage, *rest = name.removesuffix("." + tail).split(".")
    if stage == "stem":
        return f"res_conv1_{suffix[tail]}" if "norm" in tail else f"conv1_{suffix[tail]}"
    block, convolution = rest
    branch = {"shortcut": "1", "conv1": "2a", "conv2": "2b", "conv3": "2c"}[convolution]
    return f"{stage}_{block}_branch{branch}_{suffix[tail]}"


def save_caffe2(model: torch.nn.Module, folder: Path) -> Path:
    """Of the backbone alone, without statistics of its BN, underscores for dots, and no `__author__`."""
    state = model.backbone.bottom_up.state_dict()
    blobs = {caffe2_name(name): tensor.numpy() for name, tensor in state.items() if "running" not in name}
    path = folder / "R-18.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}))
    return path


@pytest.mark.parametrize(
    ("kind", "save"),
    [*itertools.product(("mask", "keypoint"), (save_pth, save_zoo_pkl)), ("mask", save_caffe2)],
)
def test_baseline_checkpoint_is_a_warm_start(
    kind: str,
    save: Callable[[torch.nn.Module, Path], Path],
    mask_cfg: CfgNode,
    keypoint_cfg: CfgNode,
    photo: np.ndarray,
    tmp_path: Path,
) -> None:
    """Exactly the blocks' tensors are missing from it, and detections are the same, to the bit."""
    cfg = mask_cfg if kind == "mask" else keypoint_cfg
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # an untrained model is sure of nothing
    if save == save_caffe2:
        cfg.MODEL.RESNETS.NORM = "FrozenBN"
    torch.manual_seed(1)
    trained = build_model(baseline_of(cfg))
    cfg.MODEL.WEIGHTS = str(save(trained, tmp_path))
    seeded = []
    for build, config in ((build_model, cfg), (DefaultPredictor, baseline_of(cfg)), (DefaultPredictor, cfg)):
        torch.manual_seed(2)  # the heads, which Caffe2's file lacks, are the same in all
        seeded.append(build(config))
    new, baseline, predictor = seeded
    state, expected = predictor.model.state_dict(), baseline.model.state_dict()
    loaded = [name for name in trained.state_dict() if save != save_caffe2 or "bottom_up" in name]
    weights = [name for name in loaded if "running" not in name]
    assert all(state[name].equal(trained.state_dict()[name]) for name in weights)
    assert all(state[name].equal(tensor) for name, tensor in expected.items())
    missing = state.keys() - expected.keys()
    assert all("non_local_" in name and state[name].equal(new.state_dict()[name]) for name in missing)
    assert len(missing) == (12 if kind == "mask" else 48)
    assert_same_detections(predictor(photo), baseline(photo), kind)


def assert_same_detections(outputs: dict, expected: dict, kind: str) -> None:
    ours, theirs = outputs["instances"], expected["instances"]
    assert len(ours) == len(theirs) > 0
    assert ours.pred_boxes.tensor.equal(theirs.pred_boxes.tensor)
    for field in ("scores", "pred_classes", "pred_masks" if kind == "mask" else "pred_keypoints"):
        assert ours.get(field).equal(theirs.get(field))


def training_input(kind: str, count: int) -> dict[str, object]:
    """An image with `count` objects."""
    instances = Instances((64, 96))
    instances.gt_boxes = Boxes(torch.tensor([[8.0, 8.0, 56.0, 56.0]]).repeat(count, 1))
    instances.gt_classes = torch.zeros(count, dtype=torch.int64)
    if kind == "mask":
        instances.gt_masks = BitMasks(torch.ones(count, 64, 96, dtype=torch.bool))
    else:
        instances.gt_keypoints = Keypoints(torch.tensor([20.0, 30.0, 2.0]).repeat(count, 17, 1))
    image = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    return {"image": image, "instances": instances, "height": 64, "width": 96}


@pytest.mark.parametrize("counts", [(0, 0), (0, 2)], ids=str)
@pytest.mark.parametrize("kind", ["mask", "keypoint"])
def test_images_without_objects(
    kind: str, counts: tuple[int, int], mask_cfg: CfgNode, keypoint_cfg: CfgNode
) -> None:
    model = build_model(mask_cfg if kind == "mask" else keypoint_cfg)
    inputs = [training_input(kind, count) for count in counts]
    with EventStorage():
        losses = model.train()(inputs)
        sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    head = model.roi_heads.mask_head if kind == "mask" else model.roi_heads.keypoint_head
    assert all(p.grad is not None for p in head.parameters())
    model.roi_heads.box_predictor.test_score_thresh = 1.1  # no detection at all
    with torch.no_grad():
        outputs = model.eval()(inputs)
    assert [len(output["instances"]) for output in outputs] == [0, 0]
