"""Whole detectors: baseline checkpoints of every format are a warm start, and nothing crashes on
nothing."""

import pickle
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


def baseline_of(cfg: CfgNode) -> CfgNode:
    cfg = cfg.clone()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "KRCNNConvDeconvUpsampleHead"
    return cfg


def save_pth(model: torch.nn.Module, folder: Path) -> Path:
    DetectionCheckpointer(model, str(folder)).save("baseline")
    return folder / "baseline.pth"


def save_zoo_pkl(model: torch.nn.Module, folder: Path) -> Path:
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path = folder / "baseline.pkl"
    path.write_bytes(pickle.dumps({"model": state, "__author__": "test"}))
    return path


@pytest.mark.parametrize("save", [save_pth, save_zoo_pkl])
@pytest.mark.parametrize("kind", ["mask", "keypoint"])
def test_baseline_checkpoint_is_a_warm_start(
    kind: str,
    save: object,
    mask_cfg: CfgNode,
    keypoint_cfg: CfgNode,
    photo: np.ndarray,
    tmp_path: Path,
) -> None:
    """Exactly the blocks' tensors are missing from it, and detections are the same, to the bit."""
    cfg = mask_cfg if kind == "mask" else keypoint_cfg
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0  # an untrained model is sure of nothing
    torch.manual_seed(1)
    baseline = build_model(baseline_of(cfg))
    cfg.MODEL.WEIGHTS = str(save(baseline, tmp_path))
    torch.manual_seed(2)
    predictor = DefaultPredictor(cfg)

    state, loaded = predictor.model.state_dict(), baseline.state_dict()
    assert all(state[name].equal(tensor) for name, tensor in loaded.items())
    torch.manual_seed(2)
    new = build_model(cfg).state_dict()
    missing = set(state) - set(loaded)
    assert all("non_local_" in name and state[name].equal(new[name]) for name in missing)
    assert sum("non_local_" in name for name in state) == len(missing)

    baseline_predictor = DefaultPredictor(_with_weights(baseline_of(cfg), str(save(baseline, tmp_path))))
    _assert_same_detections(predictor(photo), baseline_predictor(photo), kind)


def _with_weights(cfg: CfgNode, weights: str) -> CfgNode:
    cfg.MODEL.WEIGHTS = weights
    return cfg


def _assert_same_detections(outputs: dict, expected: dict, kind: str) -> None:
    ours, theirs = outputs["instances"], expected["instances"]
    assert len(ours) == len(theirs) > 0
    assert ours.pred_boxes.tensor.equal(theirs.pred_boxes.tensor)
    assert ours.scores.equal(theirs.scores)
    assert ours.pred_classes.equal(theirs.pred_classes)
    field = "pred_masks" if kind == "mask" else "pred_keypoints"
    assert ours.get(field).equal(theirs.get(field))


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


def test_caffe2_backbone_is_a_warm_start(mask_cfg: CfgNode, photo: np.ndarray, tmp_path: Path) -> None:
    """Caffe2 has no statistics of its BN, and underscores for dots: no `__author__` is in the file."""
    mask_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    state = build_model(baseline_of(mask_cfg)).backbone.bottom_up.state_dict()
    blobs = {caffe2_name(name): tensor.numpy() for name, tensor in state.items() if "running" not in name}
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}))

    torch.manual_seed(2)
    new = build_model(mask_cfg).state_dict()
    mask_cfg.MODEL.WEIGHTS = str(path)
    torch.manual_seed(2)  # the heads, which the file has not, are the same in both
    baseline = DefaultPredictor(baseline_of(mask_cfg))
    torch.manual_seed(2)
    predictor = DefaultPredictor(mask_cfg)
    after, expected = predictor.model.state_dict(), baseline.model.state_dict()
    assert expected["backbone.bottom_up.stem.conv1.weight"].equal(state["stem.conv1.weight"])
    assert all(after[name].equal(tensor) for name, tensor in expected.items())
    missing = set(after) - set(expected)
    assert all("non_local_" in name and after[name].equal(new[name]) for name in missing)
    assert len(missing) == 12
    _assert_same_detections(predictor(photo), baseline(photo), "mask")


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
