"""What five public implementations compute, written slowly in float64 from their formulas, and tensors as if
trained, under the names that their checkpoints have.

It shares nothing with the package but the options in `Variant`, which are what the tests are about.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
CHANNELS, INNER = 8, 4


@dataclass
class Variant:
    """One implementation with one set of its options.

    Attributes:
        tensors: random ones, by their names.
        options: what `import_block` has to be told.
        read: what it has to read from the tensors.
        formula: z for x (B, C, *S), tensors and whether in training.
    """

    layout: str
    tensors: Tensors
    options: dict[str, object]
    read: dict[str, object]
    formula: Callable[[Tensor, Tensors, bool], Tensor]


def mmcv(mode: str, use_scale: bool, sub_sample: bool, norm: bool, dim: int = 2) -> Variant:
    g, phi = ("g.0.conv", "phi.0.conv") if sub_sample else ("g.conv", "phi.conv")

    def formula(x: Tensor, t: Tensors, training: bool) -> Tensor:
        theta = x if mode == "gaussian" else conv(x, t, "theta.conv")
        key = x if mode == "gaussian" else conv(x, t, phi)
        value = conv(x, t, g)
        if sub_sample:
            key, value = pool(key), pool(value)
        if mode == "concatenation":
            weights = relu_of_pairs(theta, key, t["concat_project.conv.weight"])
        else:
            weights = products(theta, key)
            if mode == "embedded_gaussian" and use_scale:
                weights = weights / INNER**0.5
            weights = weights.softmax(-1) if "gaussian" in mode else weights / weights.shape[-1]
        out = conv(weigh(weights, value, x), t, "conv_out.conv")
        return x + (batch_norm(out, t, "conv_out.bn", training) if norm else out)

    kernel = [1] * dim
    embeddings = [g] if mode == "gaussian" else [g, phi, "theta.conv"]
    tensors = {
        **convolutions(embeddings, INNER, CHANNELS, kernel),
        **convolutions(["conv_out.conv"], CHANNELS, INNER, kernel),
    }
    if norm:
        del tensors["conv_out.conv.bias"]
        tensors |= norm_tensors("conv_out.bn")
    if mode == "concatenation":
        tensors["concat_project.conv.weight"] = random(1, 2 * INNER, 1, 1)
    told = {} if mode in ("gaussian", "concatenation") else {"pairwise": mode}
    if mode == "embedded_gaussian":
        told["scale"] = use_scale
    return Variant("mmcv", tensors, told, read(mode, sub_sample, norm, dim), formula)


def alexhex7(mode: str, sub_sample: bool, bn_layer: bool, dim: int = 2) -> Variant:
    g, phi = ("g.0", "phi.0") if sub_sample else ("g", "phi")
    w = "W.0" if bn_layer else "W"

    def formula(x: Tensor, t: Tensors, training: bool) -> Tensor:
        theta = x if mode == "gaussian" else conv(x, t, "theta")
        key = x if mode == "gaussian" else conv(x, t, phi)
        value = conv(x, t, g)
        if sub_sample:
            key, value = pool(key), pool(value)
        if mode == "concatenation":
            weights = relu_of_pairs(theta, key, t["concat_project.0.weight"])
        elif mode == "dot_product":
            weights = products(theta, key) / key.flatten(2).shape[-1]
        else:
            weights = products(theta, key).softmax(-1)
        out = conv(weigh(weights, value, x), t, w)
        return (batch_norm(out, t, "W.1", training) if bn_layer else out) + x

    kernel = [1] * dim
    embeddings = [g] if mode == "gaussian" else [g, phi, "theta"]
    tensors = {
        **convolutions(embeddings, INNER, CHANNELS, kernel),
        **convolutions([w], CHANNELS, INNER, kernel),
    }
    if bn_layer:
        tensors |= norm_tensors("W.1")
    if mode == "concatenation":
        tensors["concat_project.0.weight"] = random(1, 2 * INNER, 1, 1)
    told = {} if mode in ("gaussian", "concatenation") else {"pairwise": mode}
    return Variant("alexhex7", tensors, told, read(mode, sub_sample, bn_layer, dim), formula)


def caffe2(
    use_softmax: bool, use_scale: bool, use_maxpool: bool, norm: str, no_bias: bool = False, dim: int = 2
) -> Variant:
    def formula(x: Tensor, t: Tensors, training: bool) -> Tensor:
        max_pool = pool(x) if use_maxpool else x
        theta, phi, g = (
            conv(blob, t, name, "_w", "_b")
            for blob, name in ((x, "theta"), (max_pool, "phi"), (max_pool, "g"))
        )
        affinity = products(theta, phi)
        if use_softmax:
            p = torch.softmax(affinity * INNER**-0.5 if use_scale else affinity, 2)
        else:
            p = affinity / torch.ones_like(affinity).sum(2, keepdim=True)
        out = conv(weigh(p, g, x), t, "out", "_w", "_b")
        if norm == "BN":
            out = batch_norm(out, t, "bn", training, ("_s", "_b", "_rm", "_riv"))
        elif norm == "affine":
            shape = (-1, *[1] * (x.dim() - 2))
            out = out * t["bn_s"].view(shape) + t["bn_b"].view(shape)
        return x + out

    tensors = {
        **convolutions(["theta", "phi", "g"], INNER, CHANNELS, [1, 1, 1], "_w", "_b"),
        **convolutions(["out"], CHANNELS, INNER, [1, 1, 1], "_w", "_b"),
    }
    if no_bias:
        tensors = {name: tensor for name, tensor in tensors.items() if name.endswith("_w")}
    if norm:
        tensors |= norm_tensors("bn", ("_s", "_b", "_rm", "_riv"))
    if norm == "affine":
        del tensors["bn_rm"], tensors["bn_riv"]
    subsample = "input" if use_maxpool else "none"
    told: dict[str, object] = {"dim": dim, "subsample": subsample, "scale": use_scale}
    told["pairwise"] = "embedded_gaussian" if use_softmax else "dot_product"
    found = {"norm": "FrozenBN" if norm == "affine" else norm, "reduction": CHANNELS // INNER}
    return Variant("caffe2", tensors, told, found, formula)


def slowfast(instantiation: str, use_pool: bool, dim: int = 3) -> Variant:
    def formula(x: Tensor, t: Tensors, training: bool) -> Tensor:
        theta = conv(x, t, "conv_theta")
        pooled = pool(x) if use_pool else x
        phi, g = conv(pooled, t, "conv_phi"), conv(pooled, t, "conv_g")
        theta_phi = products(theta, phi)
        if instantiation == "softmax":
            theta_phi = torch.softmax(theta_phi * INNER**-0.5, 2)
        else:
            theta_phi = theta_phi / theta_phi.shape[2]
        out = conv(weigh(theta_phi, g, x), t, "conv_out")
        return x + batch_norm(out, t, "bn", training)

    tensors = {
        **convolutions(["conv_theta", "conv_phi", "conv_g"], INNER, CHANNELS, [1, 1, 1]),
        **convolutions(["conv_out"], CHANNELS, INNER, [1, 1, 1]),
        **norm_tensors("bn"),
    }
    pairwise = "embedded_gaussian" if instantiation == "softmax" else "dot_product"
    told = {"pairwise": pairwise, "subsample": "input" if use_pool else "none", "dim": dim}
    return Variant("slowfast", tensors, told, {"norm": "BN"}, formula)


def gcnet(mode: str, use_scale: bool, norm: bool) -> Variant:
    """The old block of MMDetection, with mmcv's names; it multiplies by sqrt(d) where mmcv divides."""
    variant = mmcv(mode, use_scale, False, norm)

    def formula(x: Tensor, t: Tensors, training: bool) -> Tensor:
        theta, phi = conv(x, t, "theta.conv"), conv(x, t, "phi.conv")
        weights = products(theta, phi)
        if mode == "embedded_gaussian":
            weights = (weights / (INNER**-0.5 if use_scale else 1)).softmax(-1)
        else:
            weights = weights / weights.shape[-1]
        out = conv(weigh(weights, conv(x, t, "g.conv"), x), t, "conv_out.conv")
        return x + (batch_norm(out, t, "conv_out.bn", training) if norm else out)

    return Variant("gcnet", variant.tensors, variant.options, variant.read, formula)


def read(mode: str, pooled: bool, norm: bool, dim: int) -> dict[str, object]:
    """What the names and shapes of mmcv and AlexHex7 show."""
    shown = {"subsample": "embedding" if pooled else "none", "norm": "BN" if norm else "", "dim": dim}
    return shown | ({"pairwise": mode} if mode in ("gaussian", "concatenation") else {})


def conv(x: Tensor, t: Tensors, name: str, weight: str = ".weight", bias: str = ".bias") -> Tensor:
    """A 1x1 convolution, whatever the dimensions of its kernel."""
    matrix = t[name + weight].flatten(1)
    out = torch.stack([matrix @ image.flatten(1) for image in x]).view(len(x), -1, *x.shape[2:])
    return out + t[name + bias].view(-1, *[1] * (x.dim() - 2)) if name + bias in t else out


def pool(x: Tensor) -> Tensor:
    """Maxima of 2x2 windows over the last two dimensions; an odd last row or column is left out."""
    height, width = x.shape[-2] // 2, x.shape[-1] // 2
    out = torch.empty(*x.shape[:-2], height, width, dtype=x.dtype)
    for i, j in itertools.product(range(height), range(width)):
        out[..., i, j] = x[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((-2, -1))
    return out


def products(theta: Tensor, phi: Tensor) -> Tensor:
    """(B, N, M)."""
    return torch.einsum("bci,bcj->bij", theta.flatten(2), phi.flatten(2))


def relu_of_pairs(theta: Tensor, phi: Tensor, weight: Tensor) -> Tensor:
    """(B, N, M), of every pair (theta_i, phi_j), over the number of positions j."""
    theta, phi = theta.flatten(2), phi.flatten(2)
    out = torch.empty(len(theta), theta.shape[2], phi.shape[2], dtype=theta.dtype)
    for i, j in itertools.product(range(theta.shape[2]), range(phi.shape[2])):
        out[:, i, j] = torch.cat([theta[:, :, i], phi[:, :, j]], 1) @ weight.flatten()
    return out.clamp(min=0) / phi.shape[2]


def weigh(weights: Tensor, value: Tensor, x: Tensor) -> Tensor:
    """(B, d, *S)."""
    y = torch.einsum("bij,bcj->bci", weights, value.flatten(2))
    return y.view(*y.shape[:2], *x.shape[2:])


def batch_norm(
    x: Tensor,
    t: Tensors,
    name: str,
    training: bool,
    kinds: tuple[str, ...] = (".weight", ".bias", ".running_mean", ".running_var"),
) -> Tensor:
    weight, bias, mean, variance = (t[name + kind] for kind in kinds)
    if training:
        values = x.transpose(0, 1).flatten(1)
        mean, variance = values.mean(1), values.var(1, unbiased=False)
    shape = (-1, *[1] * (x.dim() - 2))
    normed = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    return normed * weight.view(shape) + bias.view(shape)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def convolutions(
    names: list[str],
    outputs: int,
    inputs: int,
    kernel: list[int],
    weight: str = ".weight",
    bias: str = ".bias",
) -> Tensors:
    tensors = {}
    for name in names:
        tensors[name + weight] = random(outputs, inputs, *kernel)
        tensors[name + bias] = random(outputs)
    return tensors


def norm_tensors(name: str, kinds: tuple[str, ...] | None = None) -> Tensors:
    weight, bias, mean, variance = kinds or (".weight", ".bias", ".running_mean", ".running_var")
    tensors = {name + kind: random(CHANNELS) for kind in (weight, bias, mean)}
    tensors[name + variance] = random(CHANNELS).exp()
    return tensors if kinds else {**tensors, f"{name}.num_batches_tracked": torch.tensor(7)}
