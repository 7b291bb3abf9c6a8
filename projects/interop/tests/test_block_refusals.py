"""Blocks that cannot be imported or exported are refused in one line."""

import pytest
import torch
from nl_detectron_interop import export_block, import_block
from public_variants import Variant, alexhex7, caffe2, mmcv
from torch import Tensor

from nl_detectron import NonLocalBlock


def changed(variant: Variant, **changes: Tensor | None) -> dict[str, Tensor]:
    """The tensors of a variant, with others of them, or without those that are None."""
    tensors = {**variant.tensors, **changes}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


MMCV, CAFFE2 = mmcv("embedded_gaussian", True, False, True), caffe2(True, True, True, "BN")


@pytest.mark.parametrize(
    ("tensors", "arguments", "message"),
    [
        (MMCV.tensors, {"layout": "mmdet"}, "layout must be one of 'caffe2', .*got 'mmdet'"),
        (
            MMCV.tensors,
            {"layout": "caffe2"},
            "missing: g_w, out_w, .*; not a part of it: conv_out.*Correct the layout,",
        ),
        ({}, {"layout": "mmcv"}, "missing: .*conv_out.conv.weight, g.*. Correct the layout,"),
        (changed(MMCV, **{"phi.conv.bias": None}), {"layout": "mmcv"}, "missing: phi.conv.bias. Correct"),
        (
            changed(MMCV, **{"theta.conv.weight": None}),
            {"layout": "mmcv"},
            "missing: theta.conv.weight. Correct",
        ),
        (changed(MMCV, x=torch.ones(1)), {"layout": "mmcv"}, "'mmcv'; not a part of it: x. Correct"),
        (
            changed(MMCV, x=torch.ones(1) * 1j),
            {"layout": "mmcv"},
            "x must be a tensor or an array of numbers",
        ),
        (changed(MMCV, x="y"), {"layout": "mmcv"}, "x must be a tensor or an array of numbers; got 'str'"),
        (changed(CAFFE2, bn_rm=None), {"layout": "caffe2"}, "not a part of it: bn_riv"),
        (changed(CAFFE2, phi_b=None), {"layout": "caffe2"}, "missing: phi_b"),
        (
            changed(CAFFE2, phi_w=torch.ones(4, 8)),
            {"layout": "caffe2"},
            r"the shape of phi_w must be \(4, 8, 1, 1, 1\); got \(4, 8\)",
        ),
        (
            changed(CAFFE2, out_w=torch.ones(4, 8, 1, 1, 1)),
            {"layout": "caffe2"},
            r"the shape of out_w must be \(8, 4, 1, 1, 1\)",
        ),
        (
            changed(CAFFE2, g_w=torch.ones(3, 8, 1, 1, 1)),
            {"layout": "caffe2"},
            "the inner channels of g_w must be a divisor of the 8 channels of x; got 3",
        ),
        (
            changed(MMCV, **{"g.conv.weight": torch.ones(4, 8)}),
            {"layout": "mmcv"},
            r"the shape of g.conv.weight must be \(4, 8, 1, 1\); got \(4, 8\)",
        ),
        (MMCV.tensors, {"layout": "mmcv", "pairwise": "gaussian"}, "pairwise must be .*got 'gaussian'"),
        (MMCV.tensors, {"layout": "mmcv", "pairwise": "softmax"}, "got 'softmax'. No layout has it"),
        (MMCV.tensors, {"layout": "mmcv", "subsample": "input"}, "subsample must be 'none' in this block"),
        (MMCV.tensors, {"layout": "mmcv", "dim": 3}, "dim must be 2 in this block of the layout 'mmcv'"),
        (MMCV.tensors, {"layout": "mmcv", "scale": 1}, "scale must be one of True, False; got 1"),
        (CAFFE2.tensors, {"layout": "caffe2", "dim": 4}, "dim must be 3 or 2 or 1 .*got 4"),
        (CAFFE2.tensors, {"layout": "caffe2", "subsample": "embedding"}, "that can have it: mmcv, alexhex7"),
        (
            alexhex7("embedded_gaussian", True, True).tensors,
            {"layout": "alexhex7", "scale": True},
            "scale must be False in this block of the layout 'alexhex7'; got True",
        ),
        (
            alexhex7("dot_product", True, True, 1).tensors,
            {"layout": "alexhex7"},
            "A block that pools time cannot be imported",
        ),
    ],
)
def test_bad_imports(tensors: dict[str, Tensor], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        import_block(tensors, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "layout", "message"),
    [
        ({}, "mmcv", "subsample must be 'none' or 'embedding' .*'mmcv'; got 'input'. .*: caffe2, slowfast"),
        ({"subsample": "none"}, "alexhex7", "scale must be False .*'alexhex7'; got True. .*: caffe2"),
        ({"subsample": "none", "pairwise": "gaussian"}, "mmcv", "scale must be False .*got True"),
        ({"scale": False}, "slowfast", "scale must be True .*got False"),
        ({"norm": ""}, "slowfast", "norm must be 'BN' .*got ''"),
        ({"pairwise": "concatenation"}, "caffe2", "pairwise must be .*'concatenation'. .*: mmcv, alexhex7"),
        ({"norm": "GN"}, "caffe2", "norm must be .*got 'GN'. No layout has it"),
        ({"norm": "FrozenBN", "subsample": "none"}, "mmcv", "norm must be .*got 'FrozenBN'. .*: caffe2"),
        ({"dim": 3, "subsample": "none"}, "gcnet", "dim must be 2 in this block"),
    ],
)
def test_bad_exports(options: dict[str, object], layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        export_block(NonLocalBlock(32, **options), layout)
