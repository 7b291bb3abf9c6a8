"""Blocks of other implementations: imported, they compute what their own slow formula does; and back."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from nl_detectron_interop import LAYOUTS, block_options, export_block, find_layout, import_block
from public_variants import CHANNELS, INNER, Variant, alexhex7, caffe2, gcnet, mmcv, slowfast
from torch import Tensor

from nl_detectron import NonLocalBlock

MODES = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
VARIANTS_MD = (Path(__file__).parents[3] / "docs" / "variants.md").read_text()
SIZES = {1: (7,), 2: (5, 7), 3: (2, 5, 7)}
BOOL = (True, False)

VARIANTS = {
    **{
        f"mmcv {mode} {pooled=} {norm=} {scale=}": (mmcv, (mode, scale, pooled, norm))
        for mode in MODES
        for scale in (BOOL if mode == "embedded_gaussian" else (True,))
        for pooled in BOOL
        for norm in BOOL
    },
    **{f"mmcv 1d {mode}": (mmcv, (mode, True, False, True, 1)) for mode in MODES},
    **{f"mmcv 3d {mode}": (mmcv, (mode, True, True, True, 3)) for mode in MODES},
    **{
        f"alexhex7 {mode} {pooled=} {norm=} {dim=}": (alexhex7, (mode, pooled, norm, dim))
        for mode in MODES
        for dim in (1, 2, 3)
        for pooled in (BOOL if dim > 1 else (False,))
        for norm in BOOL
    },
    **{
        f"caffe2 {softmax=} {scale=} {pooled=} {norm} {dim=}": (
            caffe2,
            (softmax, scale, pooled, norm, False, dim),
        )
        for softmax in BOOL
        for scale in (BOOL if softmax else (True,))
        for pooled in BOOL
        for norm in ("BN", "affine", "")
        for dim in (2, 3)
    },
    **{f"caffe2 without bias, {norm}": (caffe2, (True, True, True, norm, True)) for norm in ("BN", "affine")},
    **{
        f"slowfast {instantiation} {pooled=} {dim=}": (slowfast, (instantiation, pooled, dim))
        for instantiation in ("softmax", "dot_product")
        for pooled in BOOL
        for dim in (2, 3)
    },
    **{
        f"gcnet {mode} {scale=} {norm=}": (gcnet, (mode, scale, norm))
        for mode in ("embedded_gaussian", "dot_product")
        for scale in (BOOL if mode == "embedded_gaussian" else (True,))
        for norm in BOOL
    },
}


# Every third one is fast: among these are all pairwise functions of all implementations.
CASES = [
    pytest.param(variant, id=name, marks=[pytest.mark.slow] if k % 3 != 2 else [])
    for k, (name, variant) in enumerate(VARIANTS.items())
]


@pytest.fixture(params=CASES)
def variant(request: pytest.FixtureRequest) -> Variant:
    torch.manual_seed(1)
    implementation, options = request.param
    return implementation(*options)


def features(block: NonLocalBlock) -> Tensor:
    return torch.randn(2, CHANNELS, *SIZES[block.dim], dtype=torch.float64)


def imported(variant: Variant) -> NonLocalBlock:
    return import_block(variant.tensors, variant.layout, **variant.options)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_imported_block_computes_the_same(variant: Variant) -> None:
    block = imported(variant)
    assert block.training
    x = features(block)
    for training in BOOL:  # training changes the statistics of the block, not those of the tensors
        assert_close(imported(variant).train(training)(x), variant.formula(x, variant.tensors, training))
    assert not block.eval()(x).equal(x)


def test_what_the_tensors_show_is_read(variant: Variant) -> None:
    options = block_options(imported(variant))
    assert {**options, **variant.options, **variant.read} == options


@pytest.mark.parametrize("norm", ["", "BN", "FrozenBN", "GN"])
def test_options_make_such_a_block(norm: str) -> None:
    options = block_options(NonLocalBlock(32, norm=norm))
    assert options["norm"] == norm
    assert type(NonLocalBlock(32, **options).out.norm) is type(NonLocalBlock(32, norm=norm).out.norm)


def test_export_gives_the_tensors_back(variant: Variant) -> None:
    block = imported(variant).eval()
    exported = export_block(block, variant.layout)
    x = features(block)
    assert_close(variant.formula(x, exported, False), variant.formula(x, variant.tensors, False))
    zero_biases = {name for name in exported.keys() - variant.tensors.keys() if not exported[name].any()}
    assert exported.keys() - zero_biases == variant.tensors.keys()
    assert not zero_biases or "theta_b" in zero_biases
    folded = {"W.0.bias", "W.1.running_mean", "conv_out.bias", "bn.running_mean", "out_b", "bn_rm"}
    if "bn_rm" not in variant.tensors:
        folded.add("bn_b")
    for name, tensor in variant.tensors.items():
        assert exported[name].shape == tensor.shape
        assert name in folded or exported[name].allclose(tensor, rtol=1e-12)


def test_round_trip_changes_nothing(variant: Variant) -> None:
    block = imported(variant).eval()
    again = import_block(export_block(block, variant.layout), variant.layout, **variant.options).eval()
    x = features(block)
    if block_options(block)["norm"] == "FrozenBN":  # whose variance is folded into its scale
        assert_close(again(x), block(x))
    else:
        assert again(x).equal(block(x))


@pytest.mark.parametrize(
    ("implementation", "options", "wrong"),
    [
        (mmcv, ("embedded_gaussian", True, True, True), {"scale": False}),
        (mmcv, ("embedded_gaussian", False, True, True), {"scale": True}),
        (mmcv, ("embedded_gaussian", True, True, True), {"pairwise": "dot_product"}),
        (caffe2, (True, True, True, "BN"), {"scale": False}),
        (caffe2, (True, True, True, "BN"), {"subsample": "none"}),
        (caffe2, (True, True, True, "BN"), {"pairwise": "dot_product"}),
        (slowfast, ("softmax", True), {"subsample": "none"}),
        (slowfast, ("softmax", True), {"pairwise": "dot_product"}),
        (gcnet, ("embedded_gaussian", True, True), {"scale": False}),
    ],
)
def test_wrong_option_gives_other_numbers(
    implementation: Callable[..., Variant], options: tuple, wrong: dict[str, object]
) -> None:
    right = implementation(*options)
    block = import_block(right.tensors, right.layout, **{**right.options, **wrong}).eval()
    x = features(block)
    assert (block(x) - right.formula(x, right.tensors, False)).abs().max() > 1e-3


def test_layouts_of_the_same_names_differ_in_scale() -> None:
    right = gcnet("embedded_gaussian", True, True)
    block = import_block(right.tensors, "mmcv").eval()
    x = features(block)
    assert (block(x) - right.formula(x, right.tensors, False)).abs().max() > 1e-3


def test_pooling_before_and_after_the_convolutions_differ() -> None:
    """The reason why a block pooled like Caffe2's has no place in mmcv's layout."""
    block = imported(mmcv("embedded_gaussian", True, True, True)).eval()
    other = NonLocalBlock(CHANNELS, subsample="input").double().eval()
    other.load_state_dict(block.state_dict())
    x = features(block)
    assert (block(x) - other(x)).abs().max() > 1e-3


def test_defaults_are_the_implementations() -> None:
    expected = {
        "caffe2": {"pairwise": "embedded_gaussian", "scale": True, "subsample": "input", "dim": 3},
        "slowfast": {"pairwise": "dot_product", "subsample": "input", "dim": 3},
        "mmcv": {"pairwise": "embedded_gaussian", "scale": True, "subsample": "none", "dim": 2},
        "gcnet": {"pairwise": "embedded_gaussian", "scale": True, "subsample": "none", "dim": 2},
        "alexhex7": {"pairwise": "embedded_gaussian", "scale": False, "subsample": "embedding", "dim": 2},
    }
    made = {
        "caffe2": caffe2(True, True, True, "BN"),
        "slowfast": slowfast("softmax", True),
        "mmcv": mmcv("embedded_gaussian", True, False, True),
        "gcnet": gcnet("embedded_gaussian", True, True),
        "alexhex7": alexhex7("embedded_gaussian", True, True),
    }
    assert expected.keys() == LAYOUTS.keys()
    for layout, options in expected.items():
        block = import_block(made[layout].tensors, layout)
        assert options.items() <= block_options(block).items()
        assert {name: find_layout(layout).choices(block.pairwise)[name][0] for name in options} == options


def test_dtypes_arrays_and_what_may_be_missing() -> None:
    variant = caffe2(True, True, True, "BN")
    arrays = {name: tensor.float().numpy() for name, tensor in variant.tensors.items()}
    arrays["theta_w_momentum"] = np.zeros(3, np.float32)
    arrays["g_b"] = arrays["g_b"][::-1]  # of negative stride, which PyTorch does not take
    block = import_block(arrays, "caffe2")
    assert block.g.weight.dtype == torch.float32
    assert np.array_equal(export_block(block, "caffe2")["g_w"].numpy(), arrays["g_w"])
    arrays["g_w"][:] = 0
    assert block.g.weight.any()  # a copy
    half = {name: tensor.half() for name, tensor in variant.tensors.items()}
    assert import_block(half, "caffe2").g.weight.dtype == torch.float32
    old = alexhex7("dot_product", True, True).tensors
    del old["W.1.num_batches_tracked"]  # PyTorch 0.3 had none
    assert import_block(old, "alexhex7").out.norm.num_batches_tracked == 0


def test_exported_tensors_are_copies() -> None:
    block = NonLocalBlock(CHANNELS, subsample="none")
    for tensor in export_block(block, "mmcv").values():
        tensor.fill_(3)
    assert not block.out.norm.weight.any()


@pytest.mark.parametrize("norm", ["SyncBN", "naiveSyncBN"])
def test_other_batch_norms_are_exported_as_such(norm: str) -> None:
    assert "conv_out.bn.running_var" in export_block(NonLocalBlock(8, subsample="none", norm=norm), "mmcv")


def test_frozen_block_goes_to_the_affine_layer() -> None:
    variant = caffe2(True, True, True, "BN")
    block = imported(variant).freeze().eval()
    exported = export_block(block, "caffe2")
    x = features(block)
    affine = caffe2(True, True, True, "affine")
    assert {name: t.shape for name, t in exported.items()} == {n: t.shape for n, t in affine.tensors.items()}
    assert_close(affine.formula(x, exported, False), variant.formula(x, variant.tensors, False))


def test_inner_channels_other_than_half() -> None:
    block = NonLocalBlock(CHANNELS, reduction=4, subsample="none")
    assert import_block(export_block(block, "mmcv"), "mmcv").inner_channels == CHANNELS // 4 != INNER


def test_the_table_of_the_docs() -> None:
    """Of each layout: its choices, the default first."""
    rows = [[cell.strip() for cell in line.split("|")[2:-1]] for line in VARIANTS_MD.splitlines()]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 5 and row[0].startswith("`")}
    assert table.keys() == LAYOUTS.keys()
    for layout, cells in table.items():
        choices = find_layout(layout).choices("embedded_gaussian")
        told = [re.findall(r"`(\w+)`|\((none)\)", cell) for cell in cells]
        expected = [choices[name] for name in ("pairwise", "scale", "subsample", "norm")]
        assert [tuple(code for code, _ in cell) for cell in told] == [
            tuple(map(str, choice)) for choice in expected
        ]
