"""What holds for every block and every x, on cases that Hypothesis thinks up."""

from dataclasses import replace

import torch
from block_cases import Case, cases
from hypothesis import given
from hypothesis import strategies as st
from reference import reference_block
from torch import Tensor

SOFTMAX = ("gaussian", "embedded_gaussian")
POINTWISE_NORMS = ("", "BN", "FrozenBN", "naiveSyncBN")  # in eval mode maps of each channel
ORDINARY = st.floats(1e-2, 10)
WIDE = st.integers(-6, 4).map(lambda exponent: 10.0**exponent)
HUGE = st.integers(5, 15).map(lambda exponent: 10.0**exponent)  # logits, and variances, are their squares


def relative_error(value: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value expected, or to 1 if all are smaller."""
    if not expected.numel():
        return 0.0
    value, expected = value.double(), expected.double()
    return ((value - expected).abs().max() / expected.abs().max().clamp(min=1)).item()


def gradients(case: Case, x: Tensor) -> list[Tensor]:
    """Of x and all parameters, for a loss of a thousandth or so, which float16 can hold."""
    block, x = case.block(), x.detach().requires_grad_()
    z = block(x)
    weights = torch.empty_like(z).copy_(torch.randn(z.shape) / max(1, z.numel()))  # in the layout of z
    return list(torch.autograd.grad((z * weights).sum(), (x, *block.parameters())))


@given(case=cases(factor=WIDE))
def test_output_is_finite_and_like_the_input(case: Case) -> None:
    x = case.x()
    before = x.clone()
    z = case.block()(x)
    assert z.shape == x.shape
    assert z.dtype == x.dtype
    assert z.isfinite().all()
    assert x.equal(before)
    if case.strides == "contiguous":
        assert z.is_contiguous()
    if case.strides == "channels last":
        assert z.movedim(1, -1).is_contiguous()


@given(case=cases(dtypes=(torch.float16,), factor=st.floats(1, torch.finfo(torch.float16).max)))
def test_float16_saturates(case: Case) -> None:
    assert case.block()(case.x()).isfinite().all()


@given(case=cases(factor=ORDINARY))
def test_gradients_are_finite_and_like_the_input(case: Case) -> None:
    if case.dtype == torch.float16 and case.options["pairwise"] == "dot_product":
        # y is a product of three features, and gradients of its weights have two more: float16 ends at 65504.
        case = replace(case, factor=min(case.factor, 2))
    x = case.x()
    dx, *others = gradients(case, x)
    assert dx.shape == x.shape
    assert all(gradient.isfinite().all() for gradient in (dx, *others))
    if case.strides == "contiguous":
        assert dx.is_contiguous()
    if case.strides == "channels last" and len(case.sizes) > 1:  # PyTorch has no such format for (B, C, N)
        assert dx.movedim(1, -1).is_contiguous()


@given(case=cases(dtypes=(torch.float32, torch.bfloat16), factor=WIDE))
def test_autocast_is_finite(case: Case) -> None:
    check_autocast(case)


@given(case=cases(pairwise=SOFTMAX, dtypes=(torch.float32, torch.bfloat16), factor=HUGE))
def test_a_softmax_is_finite_for_huge_features(case: Case) -> None:
    assert case.block()(case.x()).isfinite().all()
    check_autocast(case)


def check_autocast(case: Case) -> None:
    block, x = case.block().float(), case.x()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = block(x)
    assert z.dtype == x.dtype
    assert z.isfinite().all()


@given(case=cases(factor=WIDE))
def test_new_block_is_the_identity(case: Case) -> None:
    x = case.x()
    assert case.new_block()(x).equal(x)


@given(
    case=cases(
        max_batch=2,
        max_positions=24,
        norms=POINTWISE_NORMS,
        dtypes=(torch.float64, torch.float32),
    )
)
def test_equals_the_equations(case: Case) -> None:
    block, x = case.block().eval(), case.x()
    options = {name: case.options[name] for name in ("pairwise", "subsample", "scale")}
    expected = reference_block(x, block.state_dict(), **options)
    assert relative_error(block(x), expected) < 100 * torch.finfo(case.dtype).eps


@given(case=cases(subsample=("none",), dtypes=(torch.float64,)))
def test_permuted_positions_permute_the_output(case: Case) -> None:
    """A non-local block knows no places, and nor do its norms."""
    block, x = case.block(), case.x().flatten(2)
    order = torch.randperm(x.shape[2])
    z = block(x.unflatten(2, case.sizes)).flatten(2)
    permuted = block(x[..., order].unflatten(2, case.sizes)).flatten(2)
    assert relative_error(permuted, z[..., order]) < 1e-10


@given(case=cases(dtypes=(torch.float64,)))
def test_permuted_images_permute_the_output(case: Case) -> None:
    block, x = case.block(), case.x()
    order = torch.randperm(case.batch)
    assert relative_error(block(x[order]), block(x)[order]) < 1e-10


@given(case=cases(dtypes=(torch.float64, torch.float32)))
def test_strides_do_not_matter(case: Case) -> None:
    x = case.x()
    tolerance = 1000 * torch.finfo(case.dtype).eps
    assert relative_error(case.block()(x), case.block()(x.contiguous())) < tolerance
    pairs = zip(gradients(case, x), gradients(case, x.contiguous()), strict=True)
    assert all(relative_error(gradient, expected) < tolerance for gradient, expected in pairs)
