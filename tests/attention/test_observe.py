"""From a pixel of the image through resizing, padding, stride and subsampling to a position, and back."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import Augmentation, ResizeShortestEdge
from detectron2.layers import CNNBlockBase
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.structures import ImageList
from torch import Tensor, nn

from nl_detectron import insert_non_local
from nl_detectron.attention import observe, queries
from nl_detectron.modeling import non_local_blocks


class Average(CNNBlockBase):
    """A stem or residual block that shows what it covers: the mean of each stride x stride pixels."""

    def __init__(self, stride: int) -> None:
        super().__init__(3, 3, stride)
        self.weight = nn.Parameter(torch.ones(()))  # a new block goes where the parameters of its stage are

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, self.stride) * self.weight


class Averages(nn.Module):
    """A detector's way to its ResNet: padding to a multiple of 32. It detects nothing."""

    def __init__(self, placement: dict[str, list[int]], **options: object) -> None:
        super().__init__()
        stages = [[Average(stride), Average(1)] for stride in (1, 2, 2)]
        self.resnet = ResNet(Average(4), stages, out_features=["res4"])
        insert_non_local(self.resnet, placement, pairwise="gaussian", reduction=3, norm="", **options)

    def forward(self, batched_inputs: list[dict[str, Tensor]]) -> list[dict]:
        padded = ImageList.from_tensors([x["image"] for x in batched_inputs], 32)
        self.resnet(padded.tensor)
        return [{}]


def planted(height: int, width: int, rectangle: tuple[slice, slice]) -> np.ndarray:
    """Black with a white rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[rectangle] = 255
    return image


def predictor(model: nn.Module, resize: Augmentation, input_format: str = "BGR") -> SimpleNamespace:
    """What `observe` needs of a DefaultPredictor."""
    return SimpleNamespace(model=model, aug=resize, input_format=input_format)


@pytest.mark.parametrize("subsample", ["input", "embedding", "none"])
@pytest.mark.parametrize(
    ("size", "shortest", "placement", "stride"),
    [
        ((96, 160), 96, {"res4": [-1]}, 16),  # as it is, no padding
        ((90, 150), 90, {"res4": [-1]}, 16),  # padded to 96 x 160
        ((96, 150), 192, {"res4": [-1]}, 16),  # twice as large, padded to 192 x 320
        ((192, 256), 96, {"res3": [1]}, 8),  # half as large
        ((100, 140), 127, {"res4": [0]}, 8),  # by 1.27, before the stage's stride, padded
        ((97, 131), 145, {"res2": [-1]}, 4),
        ((300, 211), 133, {"res4": [2]}, 16),
    ],
)
def test_a_planted_pattern_is_found_pixel_by_pixel(
    size: tuple[int, int], shortest: int, placement: dict[str, list[int]], stride: int, subsample: str
) -> None:
    """Black but for the pixels of one position j. A query on it attends to these pixels exactly."""
    height, width = size
    cell = stride * (1 if subsample == "none" else 2) / (shortest / min(size))  # in pixels of the image
    row, column = 1, 2
    # The pixels whose centres lie in position j (1, 2), counted one by one.
    ys = [y for y in range(height) if row * cell <= y + 0.5 < (row + 1) * cell]
    xs = [x for x in range(width) if column * cell <= x + 0.5 < (column + 1) * cell]
    image = planted(height, width, np.ix_(ys, xs))
    model = Averages(placement, subsample=subsample, scale=False).eval()
    seen = observe(predictor(model, ResizeShortestEdge(shortest, 10**6)), image)
    (query,) = queries.at_point(seen, xs[len(xs) // 2], ys[len(ys) // 2])
    weights = query.weights()
    assert weights[row, column] > 0.99
    painted = query.field.grid.paint(weights, height, width)
    assert (painted > 0.5).tolist() == (image[:, :, 0] > 0).tolist()


def test_every_corner_pixel_has_a_position_and_its_own() -> None:
    model = Averages({"res4": [-1]}, subsample="none").eval()
    seen = observe(predictor(model, ResizeShortestEdge(90, 10**6)), planted(90, 150, np.s_[:1, :1]))
    at = {xy: queries.at_point(seen, *xy)[0].position for xy in [(0, 0), (149, 0), (0, 89), (149, 89)]}
    assert list(at.values()) == [0, 9, 50, 59]  # of 6 x 10
    assert seen.fields[0].grid.position_at(*seen.fields[0].grid.centre(9)) == 9


def test_channels_are_in_the_order_the_model_wants() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 2] = 200  # red, in BGR
    model, resize = Averages({"res4": [-1]}).eval(), ResizeShortestEdge(64, 640)
    assert observe(predictor(model, resize), image).fields[0].x[0, :, 0, 0].tolist() == [0, 0, 200]
    assert observe(predictor(model, resize, "RGB"), image).fields[0].x[0, :, 0, 0].tolist() == [200, 0, 0]


def test_hooks_are_gone_afterwards() -> None:
    model = Averages({"res4": [-1]}).eval()
    observe(predictor(model, ResizeShortestEdge(64, 640)), planted(64, 64, np.s_[:9, :9]))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.fixture
def keypoint_model(keypoint_cfg: CfgNode) -> nn.Module:
    keypoint_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    keypoint_cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    keypoint_cfg.TEST.DETECTIONS_PER_IMAGE = 4
    return build_model(keypoint_cfg).eval()


def test_the_fields_of_a_keypoint_head_are_the_boxes_of_the_detections(
    keypoint_model: nn.Module, photo: np.ndarray
) -> None:
    seen = observe(predictor(keypoint_model, ResizeShortestEdge(96, 640)), photo)
    names = [name for name, _ in non_local_blocks(keypoint_model)]
    assert len(seen.instances) == 4
    assert [(field.name, field.detection) for field in seen.fields] == [
        (n, k) for n in names for k in range(4)
    ]
    for field in seen.fields:
        left, top, right, bottom = seen.instances.pred_boxes.tensor[field.detection].tolist()
        grid = field.grid
        assert (grid.rows, grid.columns, grid.pooled) == (14, 14, (2, 2))
        corners = grid.left, grid.top, grid.left + 14 * grid.width, grid.top + 14 * grid.height
        assert corners == pytest.approx((left, top, right, bottom), abs=1e-3)


def test_a_planted_region_goes_with_its_detection(keypoint_model: nn.Module, photo: np.ndarray) -> None:
    """What each field holds is what the head made of that box alone."""
    seen = observe(predictor(keypoint_model, ResizeShortestEdge(96, 640)), photo)
    first = next(name for name, _ in non_local_blocks(keypoint_model))
    maps = [field.x for field in seen.fields if field.name == first]
    assert all(x.shape == (1, 64, 14, 14) for x in maps)
    assert not any(torch.equal(maps[0], other) for other in maps[1:])
    points = seen.instances.pred_keypoints[2]
    asked = queries.of_detection(seen, 2, ["person"], [f"part {k}" for k in range(17)])
    assert {query.field.detection for query in asked} == {2}
    assert asked[0].label == "person 3 part 0"
    # The highest of a keypoint's heat map lies in its position of the head's map.
    for query, (x, y) in zip(asked[:17], points[:, :2].tolist(), strict=True):
        row, column = divmod(query.position, 14)
        grid = query.field.grid
        assert (math.floor((y - grid.top) / grid.height), math.floor((x - grid.left) / grid.width)) == (
            row,
            column,
        )


def test_a_box_is_asked_for_at_its_middle(mask_cfg: CfgNode, photo: np.ndarray) -> None:
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(mask_cfg).eval()
    seen = observe(predictor(model, ResizeShortestEdge(96, 640)), photo)
    (query,) = queries.of_detection(seen, 0)
    left, top, right, bottom = seen.instances.pred_boxes.tensor[0].tolist()
    assert (query.x, query.y) == pytest.approx(((left + right) / 2, (top + bottom) / 2))
    assert query.label == f"class {int(seen.instances.pred_classes[0])} 1"


def test_no_detection_is_no_field_of_the_head(keypoint_cfg: CfgNode, photo: np.ndarray) -> None:
    keypoint_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    seen = observe(predictor(build_model(keypoint_cfg).eval(), ResizeShortestEdge(96, 640)), photo)
    assert len(seen.instances) == 0
    assert seen.fields == []


def test_a_new_block_changes_nothing(mask_cfg: CfgNode, photo: np.ndarray) -> None:
    model = build_model(mask_cfg).eval()
    (field,) = observe(predictor(model, ResizeShortestEdge(96, 640)), photo).fields
    assert field.change() == 0
    nn.init.constant_(field.block.out.norm.weight, 2.0)
    difference = (field.block(field.x) - field.x).square().sum().sqrt() / field.x.square().sum().sqrt()
    assert field.change() == pytest.approx(difference.item())
    assert field.change() > 0
