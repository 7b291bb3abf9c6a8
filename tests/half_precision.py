"""A block in half precision, or on a GPU, against itself in float64 on the CPU."""

import pytest
import torch
from block_cases import randomize
from torch import Tensor, nn

from nl_detectron import NonLocalBlock
from nl_detectron.layers import pairwise

# The largest relative error of z - x and of the gradients, by norm; 16 eps in half precision.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 16 * 2**-10, torch.bfloat16: 16 * 2**-7}


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    """Let the operation multiply in half precision on the CPU too, and by this kernel."""
    monkeypatch.setattr(pairwise, "_is_on_gpu", lambda x: True)
    monkeypatch.setattr(pairwise, "select_kernel", lambda *_: kernel)


def trained(channels: int, **options: object) -> NonLocalBlock:
    """A block as if trained, whose embeddings have about the variance of x."""
    block = randomize(NonLocalBlock(channels, **options))
    for name, parameter in block.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, nonlinearity="linear")
    return block


def run(block: NonLocalBlock, x: Tensor, dz: Tensor) -> list[Tensor]:
    """z - x, and the gradients of x and the parameters, in float64 on the CPU.

    Without that of phi's bias, which is zero but for rounding: the softmax cancels it.
    """
    x = x.detach().requires_grad_()
    z = block(x)
    parameters = [parameter for name, parameter in block.named_parameters() if name != "phi.bias"]
    gradients = torch.autograd.grad(z, (x, *parameters), dz.to(z))
    return [(z - x).detach().double().cpu(), *(gradient.double().cpu() for gradient in gradients)]


def assert_near(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """By norm, relative to the value, or to a twentieth of the largest one: the gradients of biases are sums
    over all positions, which cancel, as those of their roundings do not.
    """
    floor = 0.05 * max(value.norm() / value.numel() ** 0.5 for value in expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.isfinite().all()
        scale = torch.maximum(theirs.norm(), floor * theirs.numel() ** 0.5)
        assert (ours - theirs).norm() <= tolerance * scale
