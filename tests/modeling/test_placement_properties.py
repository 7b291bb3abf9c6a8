"""Where blocks go, for any ResNet and any list of places that Hypothesis thinks up."""

import copy

import pytest
import torch
from block_cases import PAIRWISE, SUBSAMPLE
from detectron2.modeling.backbone.resnet import BasicBlock, BottleneckBlock
from hypothesis import given
from hypothesis import strategies as st
from small_models import BLOCKS_PER_STAGE, head, order, resnet

from nl_detectron import NonLocalBlock, insert_non_local, insert_non_local_keypoint
from nl_detectron.modeling import non_local_blocks

STAGES = ("res2", "res3", "res4", "res5")
COUNTS = st.lists(st.integers(1, 6), min_size=4, max_size=4) | st.sampled_from(
    list(BLOCKS_PER_STAGE.values())
)
SMALL_COUNTS = st.lists(st.integers(1, 2), min_size=4, max_size=4)
CLASSES = st.sampled_from((BasicBlock, BottleneckBlock))
ARGUMENTS = st.fixed_dictionaries(
    {
        "pairwise": st.sampled_from(PAIRWISE),
        "reduction": st.sampled_from((1, 2, 4)),
        "subsample": st.sampled_from(SUBSAMPLE),
        "scale": st.booleans(),
        "norm": st.sampled_from(("", "BN", "FrozenBN", "naiveSyncBN")),
    }
)


@st.composite
def index_lists(draw: st.DrawFn, n: int, min_size: int = 0) -> list[int]:
    """Different places in a stage of n residual blocks, counted from its start or its end."""
    places = draw(st.lists(st.integers(0, n), unique=True, min_size=min_size, max_size=n + 1))
    return [k - n if k < n and draw(st.booleans()) else k for k in places]


@st.composite
def placements(draw: st.DrawFn, counts: list[int]) -> dict[str, list[int]]:
    """At least one place in all; a stage without any may be left out."""
    some = draw(st.sampled_from(STAGES))
    placement = {}
    for name, n in zip(STAGES, counts, strict=True):
        if name == some or draw(st.booleans()):
            placement[name] = draw(index_lists(n, min_size=int(name == some)))
    return {name: placement[name] for name in draw(st.permutations(list(placement)))}


def expected_orders(counts: list[int], placement: dict[str, list[int]]) -> list[list[str]]:
    """The names of the children of each stage: block k right before residual block k."""
    orders = []
    for name, n in zip(STAGES, counts, strict=True):
        asked = {k % n if k < 0 else k for k in placement.get(name, [])}
        names = [[f"non_local_{k}"] * (k in asked) + [str(k)] * (k < n) for k in range(n + 1)]
        orders.append([name for at_k in names for name in at_k])
    return orders


@given(data=st.data(), counts=COUNTS, block_class=CLASSES)
def test_any_placement(data: st.DataObject, counts: list[int], block_class: type) -> None:
    """The rest keeps its keys, their order and its modules; every block has the channels of its place."""
    placement = data.draw(placements(counts))
    model = resnet(counts, block_class, norm="")
    keys, modules = list(model.state_dict()), dict(model.named_modules())
    assert insert_non_local(model, placement) is model
    assert [key for key in model.state_dict() if "non_local_" not in key] == keys
    assert [order(stage) for stage in model.stages] == expected_orders(counts, placement)
    assert all(stage is getattr(model, name) for name, stage in zip(STAGES, model.stages, strict=True))
    after = dict(model.named_modules())
    assert all(after[name] is module for name, module in modules.items())
    assert len(list(non_local_blocks(model))) == sum(map(len, placement.values()))
    channels = model.stem.out_channels
    for child in (child for stage in model.stages for child in stage):
        assert child.in_channels == channels
        channels = child.out_channels


@given(data=st.data(), counts=COUNTS)
def test_one_after_another_is_as_all_at_once(data: st.DataObject, counts: list[int]) -> None:
    """Blocks that are there already do not count as residual blocks."""
    placement = data.draw(placements(counts))
    single = [(name, k) for name, indices in placement.items() for k in indices]
    model = resnet(counts, norm="")
    for name, k in data.draw(st.permutations(single)):
        insert_non_local(model, {name: [k]})
    assert [order(stage) for stage in model.stages] == expected_orders(counts, placement)


@given(data=st.data(), counts=COUNTS)
def test_bad_lists_are_refused_and_change_nothing(data: st.DataObject, counts: list[int]) -> None:
    placement = data.draw(placements(counts))
    name = data.draw(st.sampled_from(list(placement)))
    n, indices = counts[STAGES.index(name)], placement[name]
    outside = st.integers(n + 1) | st.integers(max_value=-n - 1)
    no_integer = st.booleans() | st.floats() | st.text() | st.none()
    again = st.sampled_from([other for k in indices for other in {k, k % n, k % n - n} if k < n] or [n + 1])
    bad = data.draw(outside | no_integer | again)
    placement[name] = list(data.draw(st.permutations([*indices, bad])))
    model = resnet(counts, norm="")
    with pytest.raises(
        ValueError, match=f"^{name} must be a list of (integers from -{n} to {n}|places)"
    ) as error:
        insert_non_local(model, placement)
    assert f"got {placement[name]!r}. " in str(error.value)
    assert not any(isinstance(module, NonLocalBlock) for module in model.modules())


@given(
    data=st.data(),
    counts=SMALL_COUNTS,
    block_class=CLASSES,
    arguments=ARGUMENTS,
    training=st.booleans(),
    sides=st.tuples(st.integers(32, 66), st.integers(32, 66)),
)
def test_new_blocks_change_no_feature(
    data: st.DataObject,
    counts: list[int],
    block_class: type,
    arguments: dict[str, object],
    training: bool,
    sides: tuple[int, int],
) -> None:
    """And a checkpoint of the model without them is loaded but for their keys."""
    baseline = resnet(counts, block_class).train(training)
    model = insert_non_local(copy.deepcopy(baseline), data.draw(placements(counts)), **arguments)
    missing, unexpected = model.load_state_dict(baseline.state_dict(), strict=False)
    assert all("non_local_" in key for key in missing)
    assert unexpected == []
    image = torch.randn(2, 3, *sides)
    with torch.no_grad():
        expected, features = baseline(image), model(image)
    assert list(features) == list(expected)
    assert all(features[name].equal(expected[name]) for name in expected)


@given(data=st.data(), convolutions=st.integers(1, 10), arguments=ARGUMENTS, regions=st.integers(0, 3))
def test_any_keypoint_head(
    data: st.DataObject, convolutions: int, arguments: dict[str, object], regions: int
) -> None:
    every = data.draw(st.integers(1, convolutions))
    baseline = head(convolutions).eval()
    model = insert_non_local_keypoint(copy.deepcopy(baseline), every, **arguments)
    expected = []
    for k in range(1, convolutions + 1):
        expected += [f"conv_fcn{k}", f"conv_fcn_relu{k}"] + [f"non_local_{k}"] * (k % every == 0)
    assert order(model) == [*expected, "score_lowres"]
    assert [key for key in model.state_dict() if "non_local_" not in key] == list(baseline.state_dict())
    x = torch.randn(regions, 16, 14, 14)
    assert model.layers(x).equal(baseline.layers(x))
