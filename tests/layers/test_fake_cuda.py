"""Blocks and models on a pretended GPU: devices, dtypes and shapes, without values.

PyTorch's FakeTensorMode follows each operation's rules for "cuda" without a GPU. It raises an error where an
operation mixes devices, and where the program reads a value, for which it would have to wait for a GPU.
120 blocks and 15 models go forward and backward here, and 920 blocks in the slow tests.
"""

from collections.abc import Callable
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from block_cases import PAIRWISE, SUBSAMPLE
from small_models import head, resnet
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd.function import BackwardCFunction
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nl_detectron import NonLocalBlock, insert_non_local, insert_non_local_keypoint
from nl_detectron.layers import kernels, pairwise

pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11), reason="older PyTorch asks for the driver"
)

FAKE = FakeTensorMode()  # one for all, as it remembers what operations return
SIZES = {1: (6,), 2: (4, 4), 3: (2, 3, 4)}  # of `dim`
PRECISIONS = {  # the dtype of x and the parameters, and that of autocast
    "float32": (torch.float32, None),
    "float16": (torch.float16, None),
    "bfloat16": (torch.bfloat16, None),
    "autocast to float16": (torch.float32, torch.float16),
    "autocast to bfloat16": (torch.float32, torch.bfloat16),
}
CORNERS = [  # dim, subsample, norm, training, batch
    (1, "none", "FrozenBN", False, 0),
    (2, "input", "BN", True, 2),
    (3, "embedding", "GN", True, 2),
]
MODES = [("", True), ("BN", True), ("BN", False), ("GN", True), ("FrozenBN", True)]
# Every second case: each pair of a dim, a subsampling and a mode is among them.
GRID = [(dim, subsample, *mode, 2) for dim, subsample, mode in product(SIZES, SUBSAMPLE, MODES)][::2]


class OnGpu(TorchDispatchMode):
    """Asserts that all tensors of all operations are on the GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
        assert all(isinstance(t, FakeTensor) and t.fake_device.type == "cuda" for t in tensors), func
        return result


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The properties of the pretended GPU; autocast finds it too."""
    properties = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device=None: properties)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    return properties


def move(model: nn.Module) -> None:
    """`model.to("cuda")`, which refuses fake tensors."""
    for module in model.modules():
        for name, p in module.named_parameters(recurse=False):
            fake = torch.empty(p.shape, dtype=p.dtype, device="cuda")
            module.register_parameter(name, nn.Parameter(fake, p.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, torch.empty(buffer.shape, dtype=buffer.dtype, device="cuda"))


def gradients(loss: Tensor) -> dict[Tensor, Tensor]:
    """What `loss.backward()` computes; that itself needs a driver."""
    waiting, leaves = {loss.grad_fn: {0: torch.ones_like(loss)}}, {}
    with torch.no_grad():
        while waiting:
            node = max(waiting, key=lambda node: node._sequence_nr())  # all that lead to it are done
            given = waiting.pop(node)
            if hasattr(node, "variable"):  # a leaf
                leaves[node.variable] = leaves.get(node.variable, 0) + given[0]
                continue
            call = node.apply if isinstance(node, BackwardCFunction) else node
            taken = tree_leaves(call(*(given.get(index) for index in range(len(node._input_metadata)))))
            for (following, index), gradient in zip(node.next_functions, taken, strict=False):
                if following is not None and gradient is not None:
                    like = following._input_metadata[index]
                    gradient = gradient.sum_to_size(like.shape).to(like.dtype)  # as autograd does
                    sums = waiting.setdefault(following, {})
                    sums[index] = sums[index] + gradient if index in sums else gradient
    return leaves


def check(model: nn.Module, forward: Callable, shape: tuple[int, ...], precision: str) -> None:
    """A block's z is like x, and all gradients are like their parameters."""
    dtype, autocast = PRECISIONS[precision]
    model.to(dtype)
    with FAKE:
        move(model)
        x = torch.empty(shape, dtype=dtype, device="cuda", requires_grad=True)
        with OnGpu():
            with torch.autocast("cuda", dtype=autocast) if autocast else nullcontext():
                z = forward(x)
            of = gradients(sum(out.float().sum() for out in tree_leaves(z)))
    if isinstance(model, NonLocalBlock):
        assert (z.shape, z.dtype, z.device) == (x.shape, x.dtype, x.device)
    for p in (x, *(p for p in model.parameters() if p.requires_grad)):
        assert (of[p].shape, of[p].dtype, of[p].device) == (p.shape, p.dtype, p.device)


@pytest.mark.parametrize("cases", [CORNERS, pytest.param(GRID, marks=pytest.mark.slow)], ids=["few", "grid"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fits", [True, False], ids=["matrix", "no matrix"])
@pytest.mark.parametrize("form", PAIRWISE)
def test_block(
    form: str, fits: bool, precision: str, cases: list, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu.total_memory *= fits
    monkeypatch.setattr(
        kernels, "MATRIX_BYTES", kernels.MATRIX_BYTES * fits
    )  # where there is flash attention
    selected = []

    def select_kernel(*operands: object) -> str:
        selected.append(kernels.select_kernel(*operands))
        return selected[-1]

    monkeypatch.setattr(pairwise, "select_kernel", select_kernel)
    for dim, subsample, norm, training, batch in cases:
        block = NonLocalBlock(64, dim=dim, pairwise=form, subsample=subsample, norm=norm)
        check(block.train(training), block, (batch, 64, *SIZES[dim]), precision)
        assert (selected.pop() == "matrix") == (fits or batch == 0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_backbone(precision: str) -> None:
    backbone = insert_non_local(resnet([1, 1, 1, 1], freeze_at=2), {"res3": [-1], "res4": [-1, 1]}, norm="")
    check(backbone, backbone, (2, 3, 64, 64), precision)


@pytest.mark.parametrize("regions", [0, 3])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_keypoint_head(precision: str, regions: int) -> None:
    model = insert_non_local_keypoint(head(4))
    check(model, model.layers, (regions, 16, 14, 14), precision)
