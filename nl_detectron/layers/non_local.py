"""The non-local block: Sections 3.3 and 4.1 of "Non-local Neural Networks".

    z_i = W_z y_i + x_i                                                         Eq. 6

Deviations from the paper's text, each an option that can be turned back:

- `scale=True` divides the softmax logits by sqrt(d), as the authors' code does. Eq. 2 and 3 have no
  such factor (`scale=False`).
- `subsample="input"` pools x before phi and g (x-hat of Section 3.3, the authors' code); the last sentence
  of 3.3 pools after them (`subsample="embedding"`).
- With a norm without trainable scale (FrozenBN) or with none, W_z itself starts at zero; the
  paper zeroes the scale of a BN after W_z (Section 4.1). Either way a new block is the identity.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.layers import CNNBlockBase, NaiveSyncBatchNorm, get_norm
from detectron2.utils import comm
from torch import Tensor, nn

from nl_detectron.errors import ArgumentError

from .pairwise import concatenation, dot_product, saturate_, softmax_attention

PAIRWISE = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
SUBSAMPLE = ("input", "embedding", "none")
Norm = str | Callable[[int], nn.Module] | None  # what Detectron2's get_norm takes


class NonLocalBlock(CNNBlockBase):
    """A non-local block with one of the four pairwise functions, over 1, 2 or 3 dimensions.

    Children: the 1x1 convolutions `theta`, `phi` (not for "gaussian"), `g` and `out`, the last one with
    its norm as `out.norm`; for "concatenation" also `w_f`, whose `weight` has 2d elements, theta's half
    first. The base class is that of Detectron2's residual blocks, so `freeze()` works as in a ResNet.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        dim: int = 2,
        pairwise: str = "embedded_gaussian",
        reduction: int = 2,
        subsample: str = "input",
        scale: bool = True,
        norm: Norm = "BN",
    ) -> None:
        """
        Args:
            in_channels: C, the channels of x and z.
            dim: of a position: 1 (time), 2 (height, width) or 3 (time, height, width).
            pairwise: "gaussian" (Eq. 2), "embedded_gaussian" (Eq. 3), "dot_product" (Eq. 4) or
                "concatenation" (Eq. 5).
            reduction: the inner channels are d = C / reduction. It has to divide C.
            subsample: 2x2 max pooling over height and width, "input": of x before phi and g,
                "embedding": after phi and g, "none": no pooling. Time and a side of length 1 are not pooled.
            scale: divide the logits of the two Gaussian forms by sqrt(d).
            norm: the norm after W_z: anything that Detectron2's `get_norm` takes ("BN", "SyncBN",
                "naiveSyncBN", "FrozenBN", "GN", a function of the channels, ...); "" or None for none.

        Raises:
            ArgumentError: (a ValueError) for a value outside these rules.
        """
        options = {"pairwise": pairwise, "reduction": reduction, "subsample": subsample, "scale": scale}
        check_block_arguments(in_channels, dim=dim, norm=norm, **options)
        super().__init__(in_channels, in_channels, stride=1)
        self.dim, self.pairwise, self.subsample, self.scale = dim, pairwise, subsample, scale
        self.inner_channels = inner_channels = in_channels // reduction
        self.logit_scale = inner_channels**-0.5 if scale else 1.0

        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
        if pairwise != "gaussian":
            self.theta = convolution(in_channels, inner_channels, kernel_size=1)
            self.phi = convolution(in_channels, inner_channels, kernel_size=1)
        self.g = convolution(in_channels, inner_channels, kernel_size=1)
        if pairwise == "concatenation":
            self.w_f = nn.Linear(2 * inner_channels, 1, bias=False)
        self.out = OutputProjection(inner_channels, in_channels, dim, norm)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """MSRA initialisation, with zeros where they make the new block the identity."""
        for name, module in self.named_children():
            if name == "w_f":  # fan_out, MSRAFill's choice, would be 1 here
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            else:
                weight_init.c2_msra_fill(module)
        if self.pairwise == "concatenation":
            self._centre()
        norm_scale = getattr(self.out.norm, "weight", None)
        if isinstance(norm_scale, nn.Parameter):
            nn.init.zeros_(norm_scale)
        else:  # no norm, or FrozenBN: a zero scale there is a buffer and would stay zero
            nn.init.zeros_(self.out.weight)

    @torch.no_grad()
    def _centre(self) -> None:
        """Make w_f ignore, in the new theta and phi, the mean over the channels of x at each position.

        After a ReLU it is positive everywhere, and may give w_f . [theta_i, phi_j] the same sign for nearly
        all pairs; where that is negative, the ReLU of Eq. 5 lets nothing through, nor any gradient. Where phi
        itself is pooled (`subsample="embedding"`), a rest of the mean stays, as max pooling is not linear.
        """
        for projection, w in zip((self.theta, self.phi), self.w_f.weight[0].chunk(2), strict=True):
            weight = projection.weight.flatten(1)  # (d, C), a view
            weight -= (w / w.square().sum())[:, None] * (w @ weight).mean()

    def forward(self, x: Tensor) -> Tensor:
        """z of Eq. 6 for x (B, C, *S) with `dim` sizes in S, of the same shape. B may be 0."""
        if torch.jit.is_scripting():  # which has no autocast for a device known at run time only
            theta, phi, g = self.embed(x)
            out = self.out(self._respond(x, theta, phi, g))
        else:
            if x.dim() != self.dim + 2:
                rule = f"(batch, channels, and {self.dim} sizes)"
                raise ArgumentError("the shape of x", rule, tuple(x.shape), "Add the batch dimension.")
            theta, phi, g = self.embed(x)
            with _without_autocast(x.device):  # the operation chooses its precision itself
                y = self._respond(x, theta, phi, g)
            with _without_autocast(x.device) if self._may_overflow(g) else nullcontext():
                out = self.out(y)
        return saturate_((x + out).to(x.dtype))

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta (B, d, *S) of x at all positions, phi and g (B, d, *S') at the subsampled ones.

        For "gaussian", theta and phi are x itself.
        """
        x_hat = _pool(x) if self.subsample == "input" else x
        g = saturate_(self.g(x_hat))
        if hasattr(self, "theta"):
            theta, phi = saturate_(self.theta(x)), saturate_(self.phi(x_hat))
        else:
            theta, phi = x, x_hat
        if self.subsample == "embedding":
            phi, g = _pool(phi), _pool(g)
        return theta, phi, g

    def operate(self, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """y (B, d, N) of Eq. 1, of theta (B, C or d, N), phi (B, C or d, M) and g (B, d, M)."""
        if hasattr(self, "w_f"):
            return concatenation(theta, phi, g, self.w_f.weight)
        if self.pairwise == "dot_product":
            return dot_product(theta, phi, g)
        return softmax_attention(theta, phi, g, self.logit_scale)

    def _respond(self, x: Tensor, theta: Tensor, phi: Tensor, g: Tensor) -> Tensor:
        """y (B, d, *S) of x and its embeddings, in the precision in which `out` takes it."""
        y = self.operate(theta.flatten(2), phi.flatten(2), g.flatten(2)).unflatten(2, x.shape[2:])
        return saturate_(y.to(self.out.weight.dtype)) if self._may_overflow(g) else y.to(g.dtype)

    def _may_overflow(self, g: Tensor) -> bool:
        """Whether W_z y may be far beyond float16: no softmax keeps y within g."""
        return g.dtype == torch.float16 and self.pairwise in ("dot_product", "concatenation")

    def variant(self) -> dict[str, str | bool]:
        """The options that decide what the block computes, and that no tensor of it shows."""
        options = {"pairwise": self.pairwise, "subsample": self.subsample}
        return {**options, "scale": self.scale} if "gaussian" in self.pairwise else options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.variant().items())


class OutputProjection(nn.Module):
    """W_z and its norm (Eq. 6): a 1x1 convolution from y (B, d, *S) to W_z y (B, C, *S)."""

    def __init__(self, in_channels: int, out_channels: int, dim: int, norm: Norm) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *[1] * dim))
        self.register_parameter("bias", None if norm else nn.Parameter(torch.empty(out_channels)))
        self.norm = get_norm(norm, out_channels)

    def forward(self, y: Tensor) -> Tensor:
        if y.dim() == 3:
            out = F.conv1d(y, self.weight, self.bias)
        elif y.dim() == 4:
            out = F.conv2d(y, self.weight, self.bias)
        else:
            out = F.conv3d(y, self.weight, self.bias)
        out = saturate_(out)
        if self.norm is None:
            return out
        if not torch.jit.is_scripting():
            if self._is_single_value(out):
                zero = out - out  # so that every parameter has a gradient, of zeros
                affine = [p.view(1, -1, *[1] * (out.dim() - 2)) for p in self.norm.parameters()]
                return zero * affine[0] + affine[1] if affine else zero
            if isinstance(self.norm, NaiveSyncBatchNorm):  # whose sums are in the precision of its input
                out = out.to(self.weight.dtype)  # float32 under autocast
        if out.dim() == 4:
            return self.norm(out)
        # Detectron2's norms want two spatial dimensions; to a norm all positions are alike. The gradients of
        # PyTorch's batch norm are wrong on CPUs where strides left by a view fit both memory formats, so its
        # input is made contiguous, and slicing its output makes the gradient contiguous.
        positions = out.flatten(2).unsqueeze(3).contiguous()  # (B, C, N, 1)
        return self.norm(positions).narrow(2, 0, positions.shape[2]).view(out.shape)

    def _is_single_value(self, out: Tensor) -> bool:
        """Whether the norm would have one value for each statistic, which PyTorch refuses."""
        if isinstance(self.norm, nn.GroupNorm):
            return out.numel() == self.norm.num_groups
        is_local = type(self.norm) is nn.BatchNorm2d or comm.get_world_size() == 1  # not synchronised
        is_batch_norm = isinstance(self.norm, nn.modules.batchnorm._BatchNorm) and is_local
        return self.training and is_batch_norm and out.numel() == out.shape[1]


def check_block_arguments(
    in_channels: int, *, dim: int = 2, pairwise: str, reduction: int, subsample: str, scale: bool, norm: Norm
) -> None:
    """Raise an ArgumentError for arguments that `NonLocalBlock` does not take."""
    _check_choice("dim", dim, (1, 2, 3))
    _check_choice("pairwise", pairwise, PAIRWISE)
    _check_choice("subsample", subsample, SUBSAMPLE)
    _check_choice("scale", scale, (True, False))
    if type(in_channels) is not int or in_channels < 1:
        raise ArgumentError("in_channels", "a positive integer", in_channels, "Give x's channels.")
    if type(reduction) is not int or reduction < 1 or in_channels % reduction:
        rule = f"a positive integer that divides the {in_channels} channels of x"
        raise ArgumentError("reduction", rule, reduction, "The paper has 2.")
    if not _is_norm(norm, in_channels):
        rule = f"a norm that Detectron2's get_norm has for {in_channels} channels"
        raise ArgumentError("norm", rule, norm, 'Use "BN", "SyncBN", "GN" or "".')


def _is_norm(norm: object, channels: int) -> bool:
    if not isinstance(norm, str):
        return norm is None or callable(norm)
    try:
        get_norm(norm, channels)
    except (KeyError, ValueError):  # no such name, or groups that do not divide the channels
        return False
    return True


def _check_choice(name: str, value: object, choices: tuple) -> None:
    if type(value) is not type(choices[0]) or value not in choices:
        rule = "one of " + ", ".join(map(repr, choices))
        raise ArgumentError(name, rule, value, "Choose one of these.")


def _pool(x: Tensor) -> Tensor:
    """2x2 max pooling over height and width of x (B, C, *S); time and a side of length 1 stay."""
    if x.dim() == 3:
        return x
    height = min(2, x.shape[-2])
    width = min(2, x.shape[-1])
    if x.dim() == 4:
        return F.max_pool2d(x, [height, width])
    return F.max_pool3d(x, [1, height, width])


def _without_autocast(device: torch.device) -> AbstractContextManager:
    """The meta device, on which models are only counted, has no autocast."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
