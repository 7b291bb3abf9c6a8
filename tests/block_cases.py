"""Blocks of any options and features of any shape, dtype and strides, for tests of properties."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from nl_detectron import NonLocalBlock

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SUBSAMPLE = ("input", "embedding", "none")
NORMS = ("", "BN", "GN", "FrozenBN", "naiveSyncBN")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)

UNIT = st.just(1.0)

# How the values of x (B, C, *S) may lie in memory. The two that expand x give other values too.
STRIDES = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "every other position": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
    "every other channel": lambda x: x.repeat_interleave(2, dim=1)[:, ::2],
    "batch last": lambda x: x.movedim(0, -1).contiguous().movedim(-1, 0),
    "positions transposed": lambda x: x.transpose(2, -1).contiguous().transpose(2, -1),
    "one position expanded": lambda x: x[..., :1].expand_as(x),
    "one image expanded": lambda x: x[:1].expand_as(x),
    "some of the channels": lambda x: torch.cat([x, x, x], dim=1)[:, x.shape[1] : 2 * x.shape[1]],
    "some of the channels, last": lambda x: STRIDES["channels last"](torch.cat([x, x], dim=1))[
        :, : x.shape[1]
    ],
}


@dataclass(frozen=True)
class Case:
    """A block and its x, in words and numbers: what Hypothesis prints of a failure is enough to repeat it."""

    channels: int
    options: dict[str, object]
    training: bool
    batch: int
    sizes: tuple[int, ...]
    strides: str
    dtype: torch.dtype
    factor: float
    seed: int

    def new_block(self) -> NonLocalBlock:
        torch.manual_seed(self.seed)
        return NonLocalBlock(self.channels, **self.options).to(self.dtype).train(self.training)

    def block(self) -> NonLocalBlock:
        """As if trained."""
        return randomize(self.new_block())

    def x(self) -> Tensor:
        """(B, C, *S), normally distributed with `factor` as deviation; finite."""
        torch.manual_seed(self.seed + 1)
        largest = torch.finfo(self.dtype).max
        x = torch.randn(self.batch, self.channels, *self.sizes, dtype=torch.float64) * self.factor
        return STRIDES[self.strides](x.clamp(-largest, largest).to(self.dtype))


def randomize(block: NonLocalBlock) -> NonLocalBlock:
    """A block as if trained: no parameter or statistic at its initial value."""
    for name, tensor in block.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2.0)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn_like(tensor) * 0.5)
    return block


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    max_batch: int = 4,
    max_positions: int = 1600,
    pairwise: tuple[str, ...] = PAIRWISE,
    subsample: tuple[str, ...] = SUBSAMPLE,
    norms: tuple[str, ...] = NORMS,
    dtypes: tuple[torch.dtype, ...] = DTYPES,
    strides: tuple[str, ...] = tuple(STRIDES),
    factor: st.SearchStrategy[float] = UNIT,
) -> Case:
    """Cases with 1 to 40 positions a side and `max_positions` in all."""
    dim = draw(st.integers(1, 3))
    sizes: list[int] = []
    left = max_positions
    for _ in range(dim):
        sizes.append(draw(st.integers(1, min(40, left))))
        left //= sizes[-1]
    reduction = draw(st.sampled_from((1, 2, 4)))
    norm = draw(st.sampled_from(norms))
    inner = draw(st.sampled_from((1, 2, 3, 5, 8, 16)))
    options = {
        "dim": dim,
        "pairwise": draw(st.sampled_from(pairwise)),
        "reduction": reduction,
        "subsample": draw(st.sampled_from(subsample)),
        "scale": draw(st.booleans()),
        "norm": norm,
    }
    return Case(
        channels=32 if norm == "GN" else inner * reduction,
        options=options,
        training=draw(st.booleans()),
        batch=draw(st.integers(0, max_batch)),
        sizes=tuple(draw(st.permutations(sizes))),
        strides=draw(st.sampled_from(strides)),
        dtype=draw(st.sampled_from(dtypes)),
        factor=draw(factor),
        seed=draw(st.integers(0, 2**31)),
    )
