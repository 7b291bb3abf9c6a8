"""The registered keypoint head: keys, initialisation, any number of regions, and what is refused."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import build_keypoint_head
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

SHAPE = ShapeSpec(channels=16, height=14, width=14)


def build(cfg: CfgNode, conv_dims: list[int], baseline: bool = False) -> torch.nn.Module:
    cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS = conv_dims
    if baseline:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = "KRCNNConvDeconvUpsampleHead"
    torch.manual_seed(5)
    return build_keypoint_head(cfg, SHAPE)


def regions(count: int) -> list[Instances]:
    """An image with `count` regions that are both proposals and truth."""
    instances = Instances((64, 64))
    instances.proposal_boxes = Boxes(torch.tensor([[4.0, 4.0, 40.0, 60.0]]).repeat(count, 1))
    instances.pred_boxes = instances.proposal_boxes
    keypoints = torch.tensor([20.0, 30.0, 2.0]).repeat(count, 17, 1)
    instances.gt_keypoints = Keypoints(keypoints)
    return [instances]


@pytest.mark.parametrize("conv_dims", [[32] * 8, [64, 32, 64, 32, 16]])
def test_is_detectron2s_head_with_blocks(keypoint_cfg: CfgNode, conv_dims: list[int]) -> None:
    """Keys, initialisation from the same seed, and outputs are Detectron2's, to the bit."""
    model = build(keypoint_cfg, conv_dims).eval()
    baseline = build(keypoint_cfg, conv_dims, baseline=True).eval()
    state = model.state_dict()
    assert all(state[key].equal(value) for key, value in baseline.state_dict().items())
    new = [key for key in state if key not in baseline.state_dict()]
    blocks = {key.split(".")[0] for key in new}
    assert blocks == {f"non_local_{k}" for k in range(2, len(conv_dims) + 1, 2)}
    features = torch.randn(3, 16, 14, 14)
    assert model.layers(features).equal(baseline.layers(features))


@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_number_of_regions(keypoint_cfg: CfgNode, count: int) -> None:
    model = build(keypoint_cfg, [32] * 4)
    features = torch.randn(count, 16, 14, 14, requires_grad=True)
    with EventStorage():
        loss = model.train()(features, regions(count))["loss_keypoint"]
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    (instances,) = model.eval()(features.detach(), regions(count))
    assert instances.pred_keypoints.shape == (count, 17, 3)
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        *[("KEYPOINT_HEAD_EVERY", every, "an integer from 1 to the 4") for every in (0, -1, 5, 1.0)],
        ("REDUCTION", 3, ".* the 32 channels"),
    ],
)
def test_a_bad_value_is_named_by_its_key(keypoint_cfg: CfgNode, key: str, value: object, rule: str) -> None:
    keypoint_cfg.MODEL.NON_LOCAL[key] = value
    with pytest.raises(ValueError, match=f"MODEL.NON_LOCAL.{key} must be {rule}"):
        build(keypoint_cfg, [32] * 4)
