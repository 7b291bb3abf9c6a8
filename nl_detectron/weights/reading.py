"""What the names and shapes of a block's tensors show, and whether they are all there."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nl_detectron.errors import ArgumentError, UserError

from .layouts import LAYOUTS, Layout

COUNTER = "out.norm.num_batches_tracked"  # without effect on the numbers, and younger than many checkpoints


def as_tensor(name: str, value: Tensor | np.ndarray) -> Tensor:
    """A tensor on the CPU, floating ones in float32 or float64."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        value = torch.from_numpy(value.copy())
    if not isinstance(value, Tensor) or value.is_complex() or value.layout != torch.strided:
        raise ArgumentError(name, "a tensor or an array of numbers", type(value).__name__, "Leave it out.")
    value = value.detach().cpu()
    return value.float() if value.is_floating_point() and value.dtype != torch.float64 else value


def shown_choices(layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, tuple]:
    """What each argument of `NonLocalBlock` can be that has made these tensors."""
    choices = {"pairwise": _shown_pairwise(layout, tensors), "norm": (_shown_norm(layout, tensors),)}
    pooled = is_pooled(layout, tensors)
    if layout.if_pooled:
        choices["subsample"] = ("embedding" if pooled else "none",)
    dim = tensors[layout.name("g.weight", pooled=pooled)].dim() - 2
    if layout.kernel_dims is None and dim in layout.dim:
        choices["dim"] = (dim,)
    return choices


def is_pooled(layout: Layout, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the names show pooling after phi and g; False for layouts whose names do not."""
    plain, pooled = layout.name("g.weight"), layout.name("g.weight", pooled=True)
    found = {plain, pooled}.intersection(tensors)
    if len(found) != 1:
        raise UserError(
            f"tensors must have one that is called {' or '.join(sorted({plain, pooled}))}, relative to the "
            f"block; got {sorted(tensors)[:4]}, ... Correct the layout or the prefix."
        )
    return plain != pooled and found == {pooled}


def expected_names(layout: Layout, pairwise: str, norm: str, *, pooled: bool) -> dict[str, str]:
    """The names there of a block's tensors, by ours."""
    embedding = ["g"] if pairwise == "gaussian" else ["theta", "phi", "g"]
    ours = [f"{module}.{kind}" for module in (*embedding, "out") for kind in ("weight", "bias")]
    if norm and not layout.bias_before_norm:
        ours.remove("out.bias")
    if pairwise == "concatenation":
        ours.append("w_f.weight")
    if norm:
        kinds = ("weight", "bias") if norm == "FrozenBN" else layout.norm_suffixes
        ours += [f"out.norm.{kind}" for kind in kinds]
    return {name: layout.name(name, pooled=pooled, normed=bool(norm)) for name in ours}


def check_names(layout: str, names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are missing, and those that no such block has.

    Args:
        names: theirs by ours, as `expected_names` gives them.
    """
    biases = {name for ours, name in names.items() if ours.endswith("bias") and "norm" not in ours}
    optional = {name for ours, name in names.items() if ours == COUNTER}
    if LAYOUTS[layout].biases_optional and not biases.intersection(tensors):
        optional |= biases
    missing = sorted(set(names.values()) - set(tensors) - optional)
    unknown = sorted(set(tensors) - set(names.values()))
    if missing or unknown:
        wrong = [f"missing: {', '.join(missing)}"] * bool(missing)
        wrong += [f"no part of it: {', '.join(unknown)}"] * bool(unknown)
        raise UserError(
            f"tensors must be those of one block of the layout {layout!r}; "
            f"{'; '.join(wrong)}. Correct the layout, the prefix or the tensors."
        )


def check_shape(name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        remedy = "The others have told its shape."
        raise ArgumentError(f"the shape of {name}", str(shape), tuple(tensor.shape), remedy)


def check_option(layout: str, name: str, value: object, choices: tuple) -> None:
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


def _shown_pairwise(layout: Layout, tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    if "w_f" in layout.modules and layout.name("w_f.weight") in tensors:
        return ("concatenation",)
    if "gaussian" in layout.pairwise and layout.name("theta.weight") not in tensors:
        return ("gaussian",)
    return tuple(name for name in layout.pairwise if name in ("embedded_gaussian", "dot_product"))


def _shown_norm(layout: Layout, tensors: Mapping[str, Tensor]) -> str:
    if not any(name in tensors for name in layout.norm_names()):
        return ""
    statistics = [layout.name(f"out.norm.{kind}") for kind in ("running_mean", "running_var")]
    is_affine = "FrozenBN" in layout.norm and not any(name in tensors for name in statistics)
    return "FrozenBN" if is_affine else "BN"
