"""Which way is taken for which sizes, and that the arithmetic is that of the code."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nl_detectron.layers import cost, pairwise
from nl_detectron.layers.cost import Cost, Sizes

RES4, KEYPOINT = (4200, 1050), (196, 49)  # N and M at 800 x 1333 pixels, and of an RoI


def choose(function: str, sizes: Sizes, training: bool = False) -> str:
    return cost.cheapest(function, sizes, training)[0]


@pytest.mark.parametrize(
    ("sizes", "training", "expected"),
    [
        (Sizes(1, *RES4, 512, 512), False, "blocks"),
        (Sizes(1, *RES4, 512, 512), True, "blocks"),
        (Sizes(1, 4200, 4200, 512, 512), True, "blocks"),
        (Sizes(1, 100 * 167, 50 * 83, 256, 256), False, "fused"),
        (Sizes(1, 100 * 167, 50 * 83, 256, 256), True, "blocks"),
        (Sizes(1, 100 * 167, 50 * 83, 512, 256), False, "blocks"),  # "gaussian", whose d is not D
        (Sizes(64, *KEYPOINT, 256, 256), False, "matrix"),
        (Sizes(512, *KEYPOINT, 256, 256), False, "blocks"),
        (Sizes(512, *KEYPOINT, 256, 256), True, "matrix"),  # y is five times as large
        (Sizes(1, 1000, 250, 64, 64), True, "matrix"),
        (Sizes(0, 100, 25, 64, 64), True, "matrix"),
    ],
)
def test_softmax(sizes: Sizes, training: bool, expected: str) -> None:
    assert choose("embedded_gaussian", sizes, training) == expected


@pytest.mark.parametrize(
    ("function", "sizes", "expected"),
    [
        ("dot_product", Sizes(1, *RES4, 512, 512), "channels"),
        ("dot_product", Sizes(64, *KEYPOINT, 256, 256), "matrix"),
        ("dot_product", Sizes(64, 196, 196, 256, 256), "matrix"),
        ("dot_product", Sizes(1, 600, 600, 512, 512), "channels"),
        ("dot_product", Sizes(1, 400, 400, 512, 512), "matrix"),
        ("concatenation", Sizes(1, *RES4, 512, 512), "sorted"),
        ("concatenation", Sizes(64, *KEYPOINT, 256, 256), "matrix"),
        ("concatenation", Sizes(64, 196, 196, 256, 256), "matrix"),
        ("concatenation", Sizes(1, 600, 600, 512, 512), "sorted"),
    ],
)
def test_dot_product_and_concatenation(function: str, sizes: Sizes, expected: str) -> None:
    assert choose(function, sizes) == expected


def test_a_matrix_that_is_too_large_is_not_held_where_another_way_is_dearer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = Sizes(1, 10, 10, 1, 1)
    costs = {"matrix": Cost(1, 0, 2 * cost.HELD_BYTES), "other": Cost(10**9, 0, 0)}
    monkeypatch.setitem(cost.COSTS, "dot_product", lambda sizes, training: costs)
    assert choose("dot_product", sizes) == "other"
    del costs["other"]
    assert choose("dot_product", sizes) == "matrix"


@pytest.mark.parametrize(
    ("function", "way", "training"),
    [
        ("embedded_gaussian", "matrix", True),
        ("embedded_gaussian", "blocks", True),
        ("embedded_gaussian", "blocks", False),
        ("dot_product", "matrix", True),
        ("dot_product", "channels", True),
        ("concatenation", "matrix", True),
    ],
)
def test_multiply_adds_are_those_of_the_code(
    monkeypatch: pytest.MonkeyPatch, function: str, way: str, training: bool
) -> None:
    """As PyTorch counts the matrix products: twice the multiply-adds."""
    monkeypatch.setattr(pairwise, "cheapest", lambda *_, **__: (way, None))
    sizes = Sizes(2, 1500, 1500, 12, 20)
    shapes = ((2, 12, 1500), (2, 12, 1500), (2, 20, 1500))
    theta, phi, g = (torch.randn(shape, requires_grad=training) for shape in shapes)
    call: Callable[[], torch.Tensor] = {
        "embedded_gaussian": lambda: pairwise.softmax_attention(theta, phi, g, 1.0),
        "dot_product": lambda: pairwise.dot_product(theta, phi, g),
        "concatenation": lambda: pairwise._concatenation(theta[:, 0], phi[:, 0], g, sizes),
    }[function]
    with FlopCounterMode(display=False) as counter:
        y = call()
        if training:
            y.sum().backward()
    expected = cost.COSTS[function](sizes, training)[way].multiply_adds
    assert counter.get_total_flops() == 2 * expected


def test_the_table_in_the_docs() -> None:
    """Its rows are | f | B | N x M | d = D | inference | training |."""
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) x (\d+) \| (\d+) \| `(\w+)` \| `(\w+)` \|$", text, re.M)
    assert len(rows) >= 15
    for function, *numbers, inference, training in rows:
        b, n, m, d = map(int, numbers)
        sizes = Sizes(b, n, m, d, d)
        assert choose(function, sizes, False) == inference, (function, sizes)
        assert choose(function, sizes, True) == training, (function, sizes)
