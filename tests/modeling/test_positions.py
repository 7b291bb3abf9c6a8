"""Half precision moves nothing: positions in regions, masks and keypoints far from the left edge."""

import copy

import pytest
import torch
from block_cases import randomize
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from nl_detectron import locate_in_float32
from nl_detectron.engine import Trainer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
HALF = (torch.float16, torch.bfloat16)
STRIDES = (4, 8)
CENTER = 1003.3


def features_of_positions(stride: int) -> Tensor:
    """x - CENTER and y - CENTER (1, 2, H, W), near CENTER; in steps that float16 and bfloat16 have."""
    cells = (torch.arange(1600 / stride) + 0.5) * stride
    offset = (cells - round(CENTER)).clamp(-64, 64)
    return torch.stack(torch.meshgrid(offset, offset, indexing="xy"))[None]


def pooled_positions(pooler: nn.Module, boxes: Boxes, dtype: torch.dtype, device: str) -> Tensor:
    """x and y (R, 2, 7, 7) of the centers of the bins of each region."""
    features = [features_of_positions(stride).to(device, dtype) for stride in STRIDES]
    with torch.autocast(device, dtype):
        return pooler(features, [boxes.to(device)]).float().cpu() + round(CENTER)


def bin_centers(boxes: Boxes) -> Tensor:
    left_top, right_bottom = boxes.tensor.split(2, dim=1)
    share = (torch.arange(7) + 0.5) / 7
    x, y = (left_top + (right_bottom - left_top) * share[:, None, None]).movedim(2, 0)
    return torch.stack([x.T[:, None].expand(-1, 7, -1), y.T[:, :, None].expand(-1, -1, 7)], dim=1)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_regions_are_pooled_where_they_are(dtype: torch.dtype, device: str) -> None:
    """Detectron2's pooler alone is pixels off at x = 1000 in bfloat16."""
    sides = torch.tensor([20.0, 33.0, 47.0, 60.0])
    boxes = Boxes(CENTER + torch.stack([-sides, -sides, sides, sides], dim=1) / 2)
    pooler = ROIPooler(7, [1 / stride for stride in STRIDES], 0, "ROIAlignV2", 32)
    precise = locate_in_float32(copy.deepcopy(nn.Sequential(pooler)))[0]
    errors = []
    for name, each in (("Detectron2's", pooler), ("ours", precise)):
        distances = (pooled_positions(each, boxes, dtype, device) - bin_centers(boxes)).abs()
        print(f"{dtype}, {name}: {distances.mean():.3f} pixels on average, {distances.max():.3f} at most")
        errors.append(distances.max().item())
    resolution = 32 * torch.finfo(dtype).eps  # half of the step of what is pooled, |x - CENTER| < 32
    assert errors[1] <= resolution / 2 + 1e-3
    if dtype == torch.bfloat16:
        assert errors[0] > 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_keypoints_are_decoded_in_float32(
    dtype: torch.dtype, device: str, keypoint_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from the same features in float32, to the bit."""
    keypoint_cfg.MODEL.DEVICE = device
    head = locate_in_float32(build_model(keypoint_cfg)).roi_heads.keypoint_head.eval()
    logits = torch.randn(2, head.num_keypoints, 56, 56, device=device).to(dtype)
    monkeypatch.setattr(type(head), "layers", lambda head, x: x)
    found = [head(x, [regions(device)])[0].pred_keypoints for x in (logits, logits.float())]
    assert found[0].dtype == torch.float32
    assert found[0].equal(found[1])


def regions(device: str) -> Instances:
    instances = Instances((800, 1333))
    instances.pred_boxes = Boxes(
        torch.tensor([[1000.3, 500.1, 1100.9, 690.2], [3.0, 4.0, 90.0, 77.0]]).to(device)
    )
    return instances


@pytest.mark.parametrize("amp", ["", "bfloat16"])
def test_a_model_in_half_precision_gives_float32(amp: str, mask_cfg: CfgNode) -> None:
    """By the config, and by an autocast around the model, as that of Detectron2's own trainer is."""
    mask_cfg.SOLVER.AMP.PRECISION, mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = amp, 0.0
    model = Trainer.build_model(mask_cfg).eval()
    seen = {}
    model.roi_heads.mask_head.register_forward_hook(
        lambda head, inputs, output: seen.update(masks=output[0].pred_masks.dtype, x=inputs[0].dtype)
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model([{"image": torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)}])
    assert seen == {"masks": torch.float32, "x": torch.bfloat16}


def test_a_copy_decodes_its_own_logits(keypoint_cfg: CfgNode) -> None:
    head = locate_in_float32(build_model(keypoint_cfg)).roi_heads.keypoint_head.eval()
    copied = copy.deepcopy(head)
    for parameter in copied.parameters():
        parameter.detach().zero_()
    x = torch.randn(1, *[head.conv_fcn1.in_channels, 14, 14])
    assert head.layers(x).any()
    assert not copied.layers(x).any()


def test_in_float32_nothing_changes(mask_cfg: CfgNode) -> None:
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    model = build_model(mask_cfg).eval()
    for module in model.modules():
        if type(module).__name__ == "NonLocalBlock":
            randomize(module)
    state = model.state_dict()
    precise = locate_in_float32(copy.deepcopy(model))
    modules = len(list(precise.modules()))
    assert len(list(locate_in_float32(precise).modules())) == modules  # twice is once
    assert precise.state_dict().keys() == state.keys()
    image = {"image": torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)}
    with torch.no_grad():
        (one,), (other,) = model([image]), precise([image])
    for field, value in one["instances"].get_fields().items():
        theirs = other["instances"].get(field)
        assert (value.tensor if isinstance(value, Boxes) else value).equal(
            theirs.tensor if isinstance(value, Boxes) else theirs
        )
