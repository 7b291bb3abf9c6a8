"""From a pixel of the image through resizing, padding, stride and subsampling to a position, and back."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.layers import CNNBlockBase
from detectron2.modeling import build_model
from detectron2.modeling.backbone.resnet import ResNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances
from nl_detectron_attention import queries
from small_models import predictor
from torch import Tensor, nn

from nl_detectron import NonLocalBlock, insert_non_local
from nl_detectron.engine.precision import use_precision
from nl_detectron.inspect import observe
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
        kind = {"pairwise": "gaussian", "reduction": 3, "norm": ""}
        insert_non_local(self.resnet, placement, in_channels=3, **kind, **options)

    def forward(self, batched_inputs: list[dict[str, Tensor]]) -> list[dict]:
        padded = ImageList.from_tensors([x["image"] for x in batched_inputs], 32)
        self.resnet(padded.tensor)
        return [{}]


def planted(height: int, width: int, rectangle: tuple[slice, slice]) -> np.ndarray:
    """Black with a white rectangle."""
    image = np.zeros((height, width, 3), np.uint8)
    image[rectangle] = 255
    return image


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


def test_a_field_is_what_the_head_makes_of_its_box(
    keypoint_model: nn.Module, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Detectron2 drops a detection: the first one is made empty."""
    heads = keypoint_model.roi_heads
    forward_box, maps = heads._forward_box, {}

    def with_an_empty_one(*args: object) -> list[Instances]:
        found = forward_box(*args)
        found[0].pred_boxes.tensor[0, 2] = found[0].pred_boxes.tensor[0, 0]
        return found

    monkeypatch.setattr(heads, "_forward_box", with_an_empty_one)
    keypoint_model.backbone.register_forward_hook(lambda *args: maps.update(args[-1]))
    resize = ResizeShortestEdge(96, 640)
    seen = observe(predictor(keypoint_model, resize), photo)
    assert len(seen.instances) == 3
    name, block = next(non_local_blocks(keypoint_model))
    inputs = []
    block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    boxes = resize.get_transform(photo).apply_box(seen.instances.pred_boxes.tensor.numpy())
    for box in torch.as_tensor(boxes, dtype=torch.float32):
        pooled = heads.keypoint_pooler([maps[m] for m in heads.keypoint_in_features], [Boxes(box[None])])
        with torch.no_grad():
            heads.keypoint_head.layers(pooled)
    for field, x in zip([field for field in seen.fields if field.name == name], inputs, strict=True):
        torch.testing.assert_close(field.x, x, atol=1e-3, rtol=1e-3)


class Regions(nn.Module):
    """A keypoint head on the pixels themselves, for one box."""

    def __init__(self, box: list[float], subsample: str) -> None:
        super().__init__()
        self.keypoint_pooler = ROIPooler(14, [1.0], 0, "ROIAlignV2")
        options = {"pairwise": "gaussian", "reduction": 3, "norm": "", "scale": False}
        self.keypoint_head = NonLocalBlock(3, subsample=subsample, **options)
        self.box = Boxes(torch.tensor([box]))

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        pixels = batched_inputs[0]["image"][None]
        self.keypoint_head(self.keypoint_pooler([pixels], [self.box]))
        found = Instances(pixels.shape[2:], pred_boxes=self.box.clone(), scores=torch.ones(1))
        size = batched_inputs[0]["height"], batched_inputs[0]["width"]
        return [{"instances": detector_postprocess(found, *size)}]


@pytest.mark.parametrize("subsample", ["input", "none"])
def test_a_planted_pattern_in_a_detection(subsample: str) -> None:
    """A box of 112 x 70 pixels of an image that is shown half as large: its positions are 8 x 5 pixels."""
    model = Regions([30.0, 10.0, 86.0, 45.0], subsample).eval()
    pooled = 1 if subsample == "none" else 2
    image = planted(
        100, 200, np.s_[20 + 3 * 5 * pooled : 20 + 4 * 5 * pooled, 60 + 8 * pooled : 60 + 16 * pooled]
    )
    seen = observe(predictor(model, ResizeShortestEdge(50, 640)), image)
    (query,) = queries.at_point(seen, 60 + 12 * pooled, 20 + 17 * pooled)
    painted = query.field.grid.paint(query.weights(), 100, 200)
    assert (painted > 0.5).tolist() == (image[:, :, 0] > 0).tolist()
    assert np.isnan(painted).sum() == 100 * 200 - 112 * 70


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


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision(precision: str, mask_cfg: CfgNode, photo: np.ndarray) -> None:
    """Rows are in float32, near those of the model in float32."""
    models = [build_model(mask_cfg).eval() for _ in range(2)]
    models[0].load_state_dict(models[1].state_dict())
    mask_cfg.SOLVER.AMP.PRECISION = precision
    use_precision(mask_cfg, models[0])
    resize = ResizeShortestEdge(96, 640)
    rows = [observe(predictor(model, resize), photo).fields[0].rows([0]) for model in models]
    assert rows[0].dtype == np.float32
    assert np.linalg.norm(rows[0] - rows[1]) < 0.1 * np.linalg.norm(rows[1])


def test_a_new_block_changes_nothing(mask_cfg: CfgNode, photo: np.ndarray) -> None:
    model = build_model(mask_cfg).eval()
    (field,) = observe(predictor(model, ResizeShortestEdge(96, 640)), photo).fields
    assert field.change == 0
    nn.init.constant_(field.block.out.norm.weight, 2.0)
    field = replace(field)  # which has not looked yet
    difference = (field.block(field.x) - field.x).square().sum().sqrt() / field.x.square().sum().sqrt()
    assert field.change == pytest.approx(difference.item())
    assert field.change > 0
