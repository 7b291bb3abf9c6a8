"""One block, into the layout of another implementation and out of it.

Three things differ from copying:

- A bias of W_z before a BN is not kept: the BN subtracts the mean of what it gets, and with it the bias. In
  training that leaves the bias no effect; the running mean loses it too, so that evaluation is the same.
- The authors' affine layer, a scale and a shift instead of a BN, becomes a FrozenBN of mean 0 and variance
  1 - eps.
- Where a layout multiplies the logits by sqrt(d), theta is taken d times: divided by sqrt(d) it is the same.

The eps of a BN is in no checkpoint: 1e-5 is taken, which all of them have by default. Caffe2's is
1.0000001e-5, a relative difference below 5e-8, less than the rounding of float32.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nl_detectron.errors import ArgumentError, UserError
from nl_detectron.layers import NonLocalBlock

from .layouts import LAYOUTS, Layout, find_layout

COUNTER = "out.norm.num_batches_tracked"  # without effect on the numbers, and younger than many checkpoints


def import_block(
    tensors: Mapping[str, Tensor | np.ndarray],
    layout: str,
    *,
    pairwise: str | None = None,
    scale: bool | None = None,
    subsample: str | None = None,
    dim: int | None = None,
) -> NonLocalBlock:
    """The block that computes what another implementation computes with these tensors.

    Channels, dimensions, norm and, where the names show them, pooling and pairwise function are read from
    the tensors. The rest are options; None is that implementation's default.

    Args:
        tensors: of one block, under their names relative to it: "theta_w", not
            "nonlocal_conv4_5_theta_w". Weights of convolutions are (d, C, 1, ...) and (C, d, 1, ...).
        layout: a name in `LAYOUTS`.
        pairwise, scale, subsample, dim: as in `NonLocalBlock`. Caffe2 and SlowFast have three dimensions
            in all their kernels; with `dim=2` the block is one for images.

    Returns:
        A new block in training mode, on the CPU, in float64 if a tensor is, else in float32.

    Raises:
        UserError: (a ValueError) for an option that the layout or the tensors exclude, for missing, unknown
            and wrongly shaped tensors, and for inner channels d that do not divide the channels C.
    """
    spec = find_layout(layout)
    theirs = {
        name: _as_tensor(name, value)
        for name, value in tensors.items()
        if not (spec.ignored and name.endswith(spec.ignored))
    }
    fitting = _fitting_variants(layout, theirs)
    given = {"pairwise": pairwise, "scale": scale, "subsample": subsample, "dim": dim}
    options = _choose_options(layout, fitting, theirs, given)
    names = next(variant.names for variant in fitting if variant.pairwise == options["pairwise"])
    block = _new_block(names["g.weight"], theirs, options)
    state = {ours: theirs[name] for ours, name in names.items() if name in theirs}
    for ours, tensor in state.items():
        if tuple(tensor.shape) != (shape := _their_shape(spec, block, ours)):
            remedy = "The other tensors decide its shape."
            raise ArgumentError(f"the shape of {names[ours]}", str(shape), tuple(tensor.shape), remedy)
    block.load_state_dict(_to_ours(spec, block, state))
    return block


def export_block(block: NonLocalBlock, layout: str) -> dict[str, Tensor]:
    """The tensors, named relative to the block, with which another implementation computes the same.

    Args:
        block: with options that the layout has: `find_layout(layout).choices(block.pairwise)`.
        layout: a name in `LAYOUTS`.

    Returns:
        Copies, in the block's dtype and on its device. A bias that the layout has before a BN is zero.

    Raises:
        ArgumentError: (a ValueError) naming the option that the layout does not have, and which have it.
    """
    spec, options = find_layout(layout), block_options(block)
    for name, choices in spec.choices(options["pairwise"]).items():
        _check_option(layout, name, options[name], choices)
    pooled, normed = options["subsample"] == "embedding", options["norm"] != ""
    return {
        spec.name(ours, pooled=pooled, normed=normed): tensor.reshape(_their_shape(spec, block, ours)).clone()
        for ours, tensor in _to_theirs(spec, block).items()
    }


def block_options(block: NonLocalBlock) -> dict[str, object]:
    """The keyword arguments with which `NonLocalBlock` makes such a block.

    A norm that checkpoints cannot tell from "BN", such as "SyncBN", is called "BN"; of other functions of the
    channels than Detectron2's, `norm` is the class. A block of one dimension is never pooled, and has
    `subsample` "none".
    """
    norm = block.out.norm
    name = "" if norm is None else type(norm).__name__
    if isinstance(norm, FrozenBatchNorm2d):
        name = "FrozenBN"
    elif isinstance(norm, _BatchNorm):
        name = "BN"
    elif isinstance(norm, nn.GroupNorm):
        name = "GN"
    return {
        "dim": block.dim,
        "pairwise": block.pairwise,
        "reduction": block.in_channels // block.inner_channels,
        "subsample": "none" if block.dim == 1 else block.subsample,
        "scale": block.scale,
        "norm": name,
    }


def _as_tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    """A tensor on the CPU, floating ones in float32 or float64."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(value.copy())
    if not isinstance(value, Tensor) or value.is_complex() or value.layout != torch.strided:
        raise ArgumentError(name, "a tensor or an array of numbers", type(value).__name__, "Leave it out.")
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() and value.dtype != torch.float64 else value


class _Variant(NamedTuple):
    """What of a block its tensors show, and the names there of these tensors, by ours."""

    pairwise: str
    norm: str
    pooled: bool
    names: dict[str, str]

    def optional(self, layout: Layout, tensors: Iterable[str]) -> set[str]:
        """The names that may be missing."""
        biases = {name for ours, name in self.names.items() if ours.endswith("bias") and "norm" not in ours}
        has_no_bias = layout.biases_optional and not biases.intersection(tensors)
        return {self.names.get(COUNTER, "")} | (biases if has_no_bias else set())


def _variants(layout: Layout) -> Iterator[_Variant]:
    for pairwise, norm, pooled in product(layout.pairwise, layout.norm, (False, bool(layout.if_pooled))):
        embedding = ["g"] if pairwise == "gaussian" else ["theta", "phi", "g"]
        ours = [f"{module}.{kind}" for module in (*embedding, "out") for kind in ("weight", "bias")]
        if norm and not layout.bias_before_norm:
            ours.remove("out.bias")
        if pairwise == "concatenation":
            ours.append("w_f.weight")
        if norm:
            kinds = ("weight", "bias") if norm == "FrozenBN" else layout.norm_suffixes
            ours += [f"out.norm.{kind}" for kind in kinds]
        names = {name: layout.name(name, pooled=pooled, normed=bool(norm)) for name in ours}
        yield _Variant(pairwise, norm, pooled, names)


def _fitting_variants(layout: str, tensors: Mapping[str, Tensor]) -> list[_Variant]:
    """Those with just these tensors; they differ in the pairwise function at most.

    Raises:
        UserError: if there is none, naming what is missing and what is not a part of the nearest.
    """
    spec, given = find_layout(layout), set(tensors)
    wrong = {}
    for variant in _variants(spec):
        names = set(variant.names.values())
        missing = sorted(names - given - variant.optional(spec, given))
        unknown = sorted(given - names)
        wrong.setdefault((len(missing) + len(unknown), tuple(missing), tuple(unknown)), []).append(variant)
    count, missing, unknown = nearest = min(wrong)
    if count:
        problems = [f"missing: {', '.join(missing)}"] if missing else []
        problems += [f"not a part of it: {', '.join(unknown)}"] if unknown else []
        raise UserError(
            f"These are not the tensors of one block of the layout {layout!r}; {'; '.join(problems)}. "
            "Correct the layout, the prefix or the tensors."
        )
    return wrong[nearest]


def _choose_options(
    layout: str, fitting: list[_Variant], tensors: Mapping[str, Tensor], given: Mapping[str, object]
) -> dict[str, object]:
    """The arguments of `NonLocalBlock`: as given, if that is possible, or else the default."""
    spec, variant = find_layout(layout), fitting[0]
    shown = {"pairwise": tuple(dict.fromkeys(each.pairwise for each in fitting)), "norm": (variant.norm,)}
    if spec.if_pooled:
        shown["subsample"] = ("embedding" if variant.pooled else "none",)
    dim = tensors[variant.names["g.weight"]].dim() - 2
    if spec.kernel_dims is None and dim in spec.dim:
        shown["dim"] = (dim,)
    pairwise = given["pairwise"] or shown["pairwise"][0]
    options = {}
    for name, choices in {**spec.choices(pairwise), **shown}.items():
        value = given.get(name)
        options[name] = choices[0] if value is None else value
        _check_option(layout, name, options[name], choices)
    if options["dim"] == 1 and options["subsample"] == "embedding":
        raise UserError("A block that pools time cannot be imported; one without pooling can.")
    return options


def _check_option(layout: str, name: str, value: object, choices: tuple) -> None:
    """Refuse an option that a layout, or the tensors in it, exclude."""
    if value in choices:
        return
    having = [
        other
        for other, spec in LAYOUTS.items()
        if any(value in spec.choices(pairwise)[name] for pairwise in spec.pairwise)
    ]
    remedy = f"The layouts that can have it: {', '.join(having)}." if having else "No layout has it."
    rule = " or ".join(map(repr, choices))
    raise ArgumentError(name, f"{rule} in this block of the layout {layout!r}", value, remedy)


def _new_block(name: str, tensors: Mapping[str, Tensor], options: Mapping[str, object]) -> NonLocalBlock:
    """A block for a weight of g of shape (d, C, 1, ...), in the dtype of the tensors."""
    inner_channels, channels = (*tensors[name].shape, 0, 0)[:2]
    if inner_channels < 1 or channels % inner_channels:
        rule = f"a divisor of the {channels} channels of x"
        remedy = "NonLocalBlock has C / reduction of them."
        raise ArgumentError(f"the inner channels of {name}", rule, inner_channels, remedy)
    block = NonLocalBlock(channels, reduction=channels // inner_channels, **options)
    is_double = any(tensor.dtype == torch.float64 for tensor in tensors.values())
    return block.to(torch.float64 if is_double else torch.float32)


def _their_shape(spec: Layout, block: NonLocalBlock, ours: str) -> tuple[int, ...]:
    channels, inner_channels = block.in_channels, block.inner_channels
    if ours == "w_f.weight":  # a convolution over the N x M matrix of pairs
        return (1, 2 * inner_channels, 1, 1)
    if ours.endswith("weight") and "norm" not in ours:
        outputs_inputs = (channels, inner_channels) if ours == "out.weight" else (inner_channels, channels)
        return (*outputs_inputs, *[1] * (spec.kernel_dims or block.dim))
    if ours == COUNTER:
        return ()
    return (channels if ours.startswith("out") else inner_channels,)


def _to_ours(spec: Layout, block: NonLocalBlock, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `block`, for tensors under our names; what is not among them is zero."""
    ours = {name: torch.zeros_like(tensor) for name, tensor in block.state_dict().items()}
    norm = block.out.norm
    if isinstance(norm, FrozenBatchNorm2d):
        ours["out.norm.running_var"].fill_(1 - norm.eps)
    ours |= {name: state[name].reshape(ours[name].shape) for name in ours if name in state}
    if norm is not None and "out.bias" in state:
        ours["out.norm.running_mean"] = ours["out.norm.running_mean"] - state["out.bias"]
    if _multiplies_logits(spec, block):
        for name in ("theta.weight", "theta.bias"):
            ours[name] = ours[name] * block.inner_channels
    return ours


def _to_theirs(spec: Layout, block: NonLocalBlock) -> dict[str, Tensor]:
    """The tensors that the layout has, under our names."""
    state = {name: tensor.detach() for name, tensor in block.state_dict().items()}
    norm = block.out.norm
    if isinstance(norm, FrozenBatchNorm2d):
        scale = state["out.norm.weight"].double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = state["out.norm.bias"].double() - state.pop("out.norm.running_mean").double() * scale
        dtype = state.pop("out.norm.running_var").dtype
        state |= {"out.norm.weight": scale.to(dtype), "out.norm.bias": shift.to(dtype)}
    if norm is not None and spec.bias_before_norm:
        state["out.bias"] = torch.zeros_like(state["out.norm.bias"])
    if _multiplies_logits(spec, block):
        for name in ("theta.weight", "theta.bias"):
            state[name] = state[name] / block.inner_channels
    if "num_batches_tracked" not in spec.norm_suffixes:
        state.pop(COUNTER, None)
    return state


def _multiplies_logits(spec: Layout, block: NonLocalBlock) -> bool:
    return spec.scale_multiplies and block.scale and block.pairwise == "embedded_gaussian"
