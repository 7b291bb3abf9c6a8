"""The counts against Detectron2's and fvcore's of real inference, PyTorch's of real blocks, and by hand."""

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.export import TracingAdapter
from detectron2.modeling import build_model
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn import ActivationCountAnalysis
from test_pipelines import MODELS, light
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron import model_zoo
from nl_detectron.config import KEYPOINT_HEAD, baseline_of
from nl_detectron.errors import ArgumentError, UserError
from nl_detectron.inspect import analysis
from nl_detectron.inspect.analysis import count_by_stage, extra_cost, total
from nl_detectron.layers.non_local import PAIRWISE

CONFIG = "COCO-InstanceSegmentation/mask_rcnn_{}_FPN_nl_1x.yaml"
N, M, C, D = 50 * 84, 25 * 42, 1024, 512  # res4 at 800 x 1333, which is padded to 800 x 1344
CONVOLUTIONS = 2 * N * C * D + 2 * M * C * D  # of W_theta and W_z, W_phi and W_g
OUTPUTS = N * D + N * C + 2 * M * D  # of these
FUSED = "aten::scaled_dot_product_attention"
PRODUCTS = ("conv", "linear", "addmm", "bmm", "matmul", "mm", "scaled_dot_product_attention")
REGIONS = {  # what their first argument has
    "roi_heads.box_predictor": "proposals",
    "roi_heads.box_predictor.0": "proposals",
    "roi_heads.mask_head": "detections",
    "roi_heads.keypoint_head": "detections",
}


def regions_of(model: nn.Module, inputs: list[dict[str, object]]) -> dict[str, int]:
    """How many regions the heads see in a forward pass."""
    seen: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, x, kind=REGIONS[name]: seen.update({kind: len(x[0])}))
        for name, module in model.named_modules()
        if name in REGIONS and not isinstance(module, nn.ModuleList)
    ]
    with torch.no_grad():
        model(inputs)
    for hook in hooks:
        hook.remove()
    return seen


def attention_shape(inputs: list[torch._C.Value]) -> tuple[int, int, int, int, int]:
    """B, N, M, d and D of fused attention, which a traced block has and fvcore does not know."""
    (b, _, n, d), (*_, m, _), (*_, d_g) = (value.type().sizes() for value in inputs[:3])
    return b, n, m, d, d_g


def attention_multiply_adds(inputs: list[torch._C.Value], outputs: list[torch._C.Value]) -> int:
    b, n, m, d, d_g = attention_shape(inputs)
    return b * n * m * (d + d_g)


def attention_activations(inputs: list[torch._C.Value], outputs: list[torch._C.Value]) -> int:
    b, n, m, _, d_g = attention_shape(inputs)
    return b * n * (m + d_g)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        # Panoptic FPN has the heads of "mask"
        *[pytest.param(name, "", marks=pytest.mark.slow) for name in sorted(set(MODELS) - {"mask"})],
        ("panoptic", "SemanticSegmentor"),  # these two pad by themselves
        ("panoptic", "ProposalNetwork"),
    ],
)
def test_real_inference(name: str, architecture: str) -> None:
    """What Detectron2 and fvcore count while an image goes through the model, to the last one."""
    cfg = light(name)
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 32
    cfg.MODEL.BACKBONE.NAME = MODELS[name][1]
    cfg.MODEL.META_ARCHITECTURE = architecture or cfg.MODEL.META_ARCHITECTURE
    if cfg.MODEL.KEYPOINT_ON:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = KEYPOINT_HEAD
    if architecture == "ProposalNetwork":  # of grey images
        cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [110.0], [1.0]
    model = build_model(cfg).eval()
    image = torch.randint(0, 256, (len(cfg.MODEL.PIXEL_MEAN), 60, 90), dtype=torch.uint8)
    inputs = [{"image": image, "height": 60, "width": 90}]
    regions = regions_of(model, inputs)
    ours = total(count_by_stage(cfg, 60, 90, **regions).values())
    flops = FlopCountAnalysis(model, inputs).set_op_handle(FUSED, attention_multiply_adds).by_operator()
    adapter = TracingAdapter(model, inputs, allow_non_tensor=True)
    activations = ActivationCountAnalysis(adapter, adapter.flattened_inputs)
    activations.set_op_handle(FUSED, attention_activations)
    assert bool(regions) == hasattr(model, "roi_heads")
    assert all(regions.values())
    assert ours.multiply_adds == sum(flops[product] for product in PRODUCTS)
    assert ours.activations == activations.total()
    assert ours.parameters == count_parameters(model)


def r50(**node: object) -> CfgNode:
    """Mask R-CNN with a block in res4."""
    cfg = model_zoo.get_config(CONFIG.format("R_50"))
    cfg.MODEL.NON_LOCAL.update(node)
    return cfg


@pytest.mark.parametrize(
    ("node", "multiply_adds", "activations"),
    [
        ({}, CONVOLUTIONS + 2 * N * M * D, OUTPUTS + N * M + N * D),
        ({"SUBSAMPLE": "none"}, 4 * N * C * D + 2 * N * N * D, 3 * N * D + N * C + N * N + N * D),
        ({"SUBSAMPLE": "embedding"}, 4 * N * C * D + 2 * N * M * D, 3 * N * D + N * C + N * M + N * D),
        ({"PAIRWISE": "gaussian"}, (N + M) * C * D + N * M * (C + D), M * D + N * C + N * M + N * D),
        # theta (phi^T g), a d x D matrix in the middle
        ({"PAIRWISE": "dot_product"}, CONVOLUTIONS + (N + M) * D * D, OUTPUTS + D * D + N * D),
        # a and b, and what is looked up for y
        ({"PAIRWISE": "concatenation"}, CONVOLUTIONS + (2 * N + M) * D, OUTPUTS + N + M + N * D),
    ],
)
def test_a_block_by_hand(node: dict[str, object], multiply_adds: int, activations: int) -> None:
    block = count_by_stage(r50(**node))["res4.non_local_5"]
    assert block[1:] == (multiply_adds, activations)


@pytest.mark.parametrize("pairwise", PAIRWISE)
def test_what_is_computed_for_small_maps(pairwise: str, mask_cfg: CfgNode) -> None:
    """Against PyTorch's counter while it runs."""
    mask_cfg.MODEL.NON_LOCAL.PAIRWISE = pairwise
    model = build_model(mask_cfg).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.backbone(torch.zeros(1, 3, 96, 128))
    counts = count_by_stage(mask_cfg, 96, 128)
    backbone = [part for part in counts if part == "FPN" or part.startswith(("stem", "res"))]
    assert sum(counts[part].multiply_adds for part in backbone) == counter.get_total_flops() // 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "percent"), [("R_50", 3.8), ("R_101", 2.9), ("X_152_32x8d", 1.4)])
def test_less_than_five_percent(name: str, percent: float) -> None:
    """Section 6: "<5% computation". A block in res4 is the same in all three."""
    baseline, model = extra_cost(model_zoo.get_config(CONFIG.format(name)))
    extra = model.multiply_adds - baseline.multiply_adds
    assert extra == CONVOLUTIONS + 2 * N * M * D == 10_020_864_000
    assert round(100 * extra / baseline.multiply_adds, 1) == percent < 5
    assert model.parameters - baseline.parameters == 4 * C * D + 3 * D + 2 * C  # with biases, and the norm


def test_parameters_are_all_the_model_has() -> None:
    """The frozen ones of the stem and res2 too."""
    cfg = r50()
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    resnet = model.backbone.bottom_up
    counts = count_by_stage(cfg, 64, 64)
    assert counts["stem"].parameters == 9408 == count_parameters(resnet.stem)
    block = counts.pop("res4.non_local_5")
    assert counts["res4"].parameters + block.parameters == count_parameters(resnet.res4)
    assert counts["mask head"].parameters == count_parameters(model.roi_heads.mask_head)
    assert total(counts.values()).parameters == 44_343_216 == count_parameters(model) - block.parameters


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parts_are_in_order(keypoint_cfg: CfgNode) -> None:
    """A stage comes before its blocks, even one in front of all others."""
    keypoint_cfg.MODEL.BACKBONE.NAME = "build_nl_resnet_fpn_backbone"
    keypoint_cfg.MODEL.NON_LOCAL.RES4 = [0]
    assert list(count_by_stage(keypoint_cfg, 64, 64)) == [
        *["stem", "res2", "res3", "res4", "res4.non_local_0", "res5", "FPN", "RPN", "box head"],
        *["keypoint head", *(f"keypoint head.non_local_{k}" for k in (2, 4, 6, 8))],
    ]


def test_regions(mask_cfg: CfgNode) -> None:
    few = count_by_stage(mask_cfg, 64, 64, proposals=10, detections=0)
    many = count_by_stage(mask_cfg, 64, 64, proposals=30, detections=5)
    assert many["box head"][1:] == tuple(3 * count for count in few["box head"][1:])
    assert few["mask head"] == (many["mask head"].parameters, 0, 0)


def test_deformable_convolution() -> None:
    """As many as a convolution, and those of the 2 x 9 offsets."""
    cfg = r50()
    without = count_by_stage(cfg)["res5"].multiply_adds
    cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE = [False, False, False, True]
    assert count_by_stage(cfg)["res5"].multiply_adds - without == 3 * M * 512 * 9 * 18


def test_the_extra_cost_of_a_baseline_is_none(mask_cfg: CfgNode) -> None:
    """The config of the model is left alone."""
    before = mask_cfg.clone()
    mask_cfg.freeze()
    baseline, model = extra_cost(mask_cfg, 64, 64)
    assert mask_cfg == before
    assert extra_cost(baseline_of(mask_cfg), 64, 64) == (baseline, baseline) != (baseline, model)


def test_what_is_refused(mask_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    mask_cfg.MODEL.NON_LOCAL.RES4 = [7]
    with pytest.raises(ArgumentError, match=r"^MODEL.NON_LOCAL.RES4 must be a list of integers from -2 to 2"):
        count_by_stage(mask_cfg)
    mask_cfg.MODEL.NON_LOCAL.RES4 = [0]

    def build_with(change: Callable[[nn.Module], object]) -> None:
        def build(cfg: CfgNode) -> nn.Module:
            model = build_model(cfg)
            change(model)
            return model

        monkeypatch.setattr(analysis, "build_model", build)

    build_with(lambda model: setattr(model.roi_heads, "mask_point_head", nn.Linear(3, 5)))
    with pytest.raises(UserError, match=r"roi_heads.mask_point_head is none"):
        count_by_stage(mask_cfg)

    build_with(lambda model: setattr(model.roi_heads, "mask_head", nn.Linear(3, 5)))
    with pytest.raises(UserError, match=r"own parts can be counted: Linear has no layers\.$"):
        count_by_stage(mask_cfg)

    def add_a_bug(model: nn.Module) -> None:
        model.backbone.bottom_up.stem.register_forward_hook(lambda module, *_: module.no_such_name)

    build_with(add_a_bug)
    with pytest.raises(AttributeError, match="no_such_name"):
        count_by_stage(mask_cfg)
    monkeypatch.setattr(analysis, "build_model", lambda cfg: nn.Linear(3, 5))
    with pytest.raises(UserError, match="has no backbone, and cannot be counted"):
        count_by_stage(mask_cfg)
