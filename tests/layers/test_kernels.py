"""Which kernel is taken for which sizes."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nl_detectron.layers.kernels import select_kernel


def select(form: str, b: int, n: int, m: int, d: int, d_g: int) -> str:
    theta, phi, g = (torch.empty(b, *shape, device="meta") for shape in ((d, n), (d, m), (d_g, m)))
    return select_kernel(form, theta, phi, g)


@pytest.mark.parametrize(
    ("form", "sizes", "expected"),
    [
        ("softmax", (1, 9375, 2294, 512, 512), "fused"),
        ("softmax", (1, 9375, 2294, 1024, 512), "matrix"),  # Gaussian, where fused attention pads g
        ("softmax", (1, 8192, 8192, 1024, 512), "matrix"),
        ("softmax", (1, 9300, 9300, 1024, 512), "fused"),
        ("softmax", (1, 100 * 167, 50 * 83, 512, 256), "fused"),
        ("softmax", (0, 100, 25, 64, 64), "matrix"),
        ("dot_product", (64, 196, 196, 256, 256), "matrix"),
        ("concatenation", (64, 196, 196, 256, 256), "matrix"),
    ],
)
def test_kernels(form: str, sizes: tuple[int, ...], expected: str) -> None:
    assert select(form, *sizes) == expected


@pytest.mark.parametrize(
    ("form", "dtype", "sizes", "expected"),
    [
        ("softmax", torch.bfloat16, (2, 4200, 1050, 512, 512), "matrix"),
        ("softmax", torch.bfloat16, (2, 16700, 4150, 256, 256), "fused"),  # flash attention
        ("softmax", torch.bfloat16, (2, 16700, 4150, 512, 256), "matrix"),  # which ends at d = 256
        ("softmax", torch.float32, (2, 16700, 4150, 256, 256), "matrix"),  # and is for half precision
        ("softmax", torch.float32, (2, 66800, 16700, 128, 128), "slabs"),
        ("softmax", torch.bfloat16, (512, 196, 49, 256, 256), "matrix"),
        ("dot_product", torch.bfloat16, (2, 66800, 16700, 128, 128), "associative"),
        ("concatenation", torch.bfloat16, (2, 16700, 4150, 256, 256), "matrix"),
        ("concatenation", torch.float32, (2, 66800, 16700, 128, 128), "slabs"),
    ],
)
def test_kernels_on_a_gpu_of_80_gib(
    form: str, dtype: torch.dtype, sizes: tuple[int, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    b, n, m, d, d_g = sizes
    with FakeTensorMode():
        shapes = ((b, d, n), (b, d, m), (b, d_g, m))
        operands = [torch.empty(shape, dtype=dtype, device="cuda") for shape in shapes]
        assert select_kernel(form, *operands) == expected


def test_the_table_in_the_docs() -> None:
    """Its rows are | form | B | N x M | d = D | kernel |."""
    text = (Path(__file__).parents[2] / "docs" / "performance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) x (\d+) \| (\d+) \| `(\w+)` \|$", text, re.M)
    assert len(rows) >= 8
    for form, *numbers, kernel in rows:
        b, n, m, d = map(int, numbers)
        assert select(form, b, n, m, d, d) == kernel, (form, numbers)
