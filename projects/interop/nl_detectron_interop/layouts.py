"""What public implementations call the tensors of a non-local block, and which variants of it they have.

Read from these repositories on GitHub, of which no code is here:

- "caffe2": facebookresearch/video-nonlocal-net, lib/models/nonlocal_helper.py, the authors' own;
- "slowfast": facebookresearch/SlowFast, slowfast/models/nonlocal_helper.py;
- "mmcv": open-mmlab/mmcv, mmcv/cnn/bricks/non_local.py;
- "gcnet": xvjiarui/GCNet, mmdet/models/plugins/non_local.py, which MMDetection 1 had too;
- "alexhex7": AlexHex7/Non-local_pytorch, lib/.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nl_detectron.errors import ArgumentError

_PYTORCH = {name: f".{name}" for name in ("weight", "bias")}
_PYTORCH_NORM = {
    name: f".{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One implementation. Of every tuple of choices the first is that implementation's default."""

    modules: Mapping[str, str]  # the name there of each child of `NonLocalBlock`
    if_pooled: Mapping[str, str] = field(default_factory=dict)  # of children that pooling renames, if it does
    if_normed: Mapping[str, str] = field(default_factory=dict)  # of those that a norm after W_z renames
    suffixes: Mapping[str, str] = field(default_factory=lambda: _PYTORCH)  # after the module's name
    norm_suffixes: Mapping[str, str] = field(default_factory=lambda: _PYTORCH_NORM)
    separator: str = "."  # between the block's own name and those names
    ignored: str | None = None  # ending of the tensors beside the block's that are no part of it
    wrapper: str = ""  # the key under which a checkpoint file has its tensors, if it has one
    pairwise: tuple[str, ...]
    scale: Mapping[str, tuple[bool, ...]]  # of the Gaussian forms; the others have no scale
    subsample: tuple[str, ...]
    norm: tuple[str, ...]
    dim: tuple[int, ...] = (2, 1, 3)
    kernel_dims: int | None = None  # spatial dimensions of all convolutions, if not the block's
    bias_before_norm: bool = False  # whether W_z has a bias before a norm too
    biases_optional: bool = False  # whether there may be no bias at all
    scale_multiplies: bool = False  # whether the logits are multiplied by sqrt(d) instead of divided

    def name(self, ours: str, *, pooled: bool = False, normed: bool = False) -> str:
        """The name there of a tensor of `NonLocalBlock`, e.g. "phi.weight"."""
        module, kind = ours.rsplit(".", 1)
        theirs = self.modules[module]
        if pooled:
            theirs = self.if_pooled.get(module, theirs)
        if normed:
            theirs = self.if_normed.get(module, theirs)
        return theirs + (self.norm_suffixes if module == "out.norm" else self.suffixes)[kind]

    def choices(self, pairwise: str) -> dict[str, tuple]:
        """What each argument of `NonLocalBlock` can be, for one pairwise function."""
        return {
            "pairwise": self.pairwise,
            "scale": self.scale.get(pairwise, (True, False)),  # without effect on the other two forms
            "subsample": self.subsample,
            "norm": self.norm,
            "dim": self.dim,
        }


_SAME = {name: name for name in ("theta", "phi", "g")}
_MMCV = {name: f"{name}.conv" for name in ("theta", "phi", "g")}
_MMCV |= {"out": "conv_out.conv", "out.norm": "conv_out.bn"}

LAYOUTS: Mapping[str, Layout] = {
    "caffe2": Layout(
        modules=_SAME | {"out": "out", "out.norm": "bn"},
        suffixes={"weight": "_w", "bias": "_b"},
        # "riv" reads like an inverse, and is the running variance: lib/utils/bn_helper.py says so
        norm_suffixes={"weight": "_s", "bias": "_b", "running_mean": "_rm", "running_var": "_riv"},
        separator="_",
        ignored="_momentum",
        wrapper="blobs",
        pairwise=("embedded_gaussian", "dot_product"),
        scale={"embedded_gaussian": (True, False)},
        subsample=("input", "none"),
        norm=("BN", "FrozenBN", ""),
        dim=(3, 2, 1),
        kernel_dims=3,
        bias_before_norm=True,
        biases_optional=True,
    ),
    "slowfast": Layout(
        modules={name: f"conv_{name}" for name in ("theta", "phi", "g", "out")} | {"out.norm": "bn"},
        wrapper="model_state",
        pairwise=("dot_product", "embedded_gaussian"),
        scale={"embedded_gaussian": (True,)},
        subsample=("input", "none"),
        norm=("BN",),
        dim=(3, 2, 1),
        kernel_dims=3,
        bias_before_norm=True,
    ),
    "mmcv": Layout(
        modules={**_MMCV, "w_f": "concat_project.conv"},
        if_pooled={"phi": "phi.0.conv", "g": "g.0.conv"},
        wrapper="state_dict",
        pairwise=("embedded_gaussian", "dot_product", "concatenation", "gaussian"),
        scale={"embedded_gaussian": (True, False), "gaussian": (False,)},
        subsample=("none", "embedding"),
        norm=("", "BN"),
    ),
    "gcnet": Layout(
        modules=_MMCV,
        wrapper="state_dict",
        pairwise=("embedded_gaussian", "dot_product"),
        scale={"embedded_gaussian": (True, False)},
        subsample=("none",),
        norm=("", "BN"),
        dim=(2,),
        scale_multiplies=True,
    ),
    "alexhex7": Layout(
        modules=_SAME | {"out": "W", "out.norm": "W.1", "w_f": "concat_project.0"},
        if_pooled={"phi": "phi.0", "g": "g.0"},
        if_normed={"out": "W.0"},
        pairwise=("embedded_gaussian", "dot_product", "concatenation", "gaussian"),
        scale={"embedded_gaussian": (False,), "gaussian": (False,)},
        subsample=("embedding", "none"),
        norm=("BN", ""),
        bias_before_norm=True,
    ),
}


def find_layout(name: str) -> Layout:
    """The layout of that name.

    Raises:
        ArgumentError: (a ValueError) if there is none.
    """
    if name not in LAYOUTS:
        rule = "one of " + ", ".join(map(repr, LAYOUTS))
        raise ArgumentError("layout", rule, name, "docs/variants.md has their table.")
    return LAYOUTS[name]
