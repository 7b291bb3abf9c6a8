"""ONNX of the non-local blocks and of the backbone, for every batch, height and width.

By torch.export (dynamo=True): its sizes are symbols, and it refuses where one would be frozen. The older
exporter, which traces, is faster (0.1 s a block instead of 2 s) and gave the same numbers; but it is
deprecated, and freezes what it cannot follow with no more than a warning.
"""

import warnings
from pathlib import Path

import torch
from detectron2.modeling.backbone import Backbone
from torch import Tensor, nn
from torch.export import Dim

from nl_detectron.errors import UserError
from nl_detectron.layers import NonLocalBlock
from nl_detectron.modeling import non_local_blocks

from .files import difference, refused, write_checked

# (batch, height, width) of a block's maps: the first for the export, all for the check. The last is that of
# a block in res4 for 400 x 672 pixels.
BLOCK_SIZES = ((2, 6, 8), (1, 5, 7), (3, 9, 4), (1, 2, 2), (1, 25, 42))
# The same of images for a backbone, in units of 32 pixels.
BACKBONE_SIZES = ((2, 4, 5), (1, 3, 2), (3, 2, 3), (1, 7, 5))
SMALLEST_IMAGE = 64  # pixels: a side of 2 in res5


def check_packages() -> None:
    """Refuse what would fail after the model is built.

    Raises:
        UserError: if a package that only ONNX needs is not there.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        remedy = "pip install '.[export]'"
        raise UserError(
            f"--format onnx-* needs the package {error.name}, which is not there: {remedy}"
        ) from None


def export_blocks(model: nn.Module, folder: Path) -> None:
    """Each non-local block of a model as `<folder>/<its name>.onnx`: x (B, C, H, W) to z.

    Raises:
        UserError: if there is no block, or a file does not do what its block does.
    """
    blocks = list(non_local_blocks(model))
    if not blocks:
        raise UserError(
            "--format onnx-block must be given with a model of non-local blocks; it has none. "
            "Use a config with nl in its name."
        )
    for name, block in blocks:
        print(f"{name}: exporting", flush=True)
        export_block(block, folder / f"{name}.onnx")


def export_block(block: NonLocalBlock, output: Path) -> None:
    """One block; maps have sides of 2 or more, or with `subsample="none"` of 1 or more."""
    inputs = [torch.randn(batch, block.in_channels, *sides) for batch, *sides in BLOCK_SIZES]
    least = 1 if block.subsample == "none" else 2
    sizes = {0: Dim("batch", min=1), 2: Dim("height", min=least), 3: Dim("width", min=least)}
    _export(block, inputs, sizes, "x", ["z"], output)


def export_backbone(backbone: Backbone, output: Path) -> None:
    """A backbone: normalised images (B, 3, H, W) to its feature maps, whose names are printed in order.

    H and W are multiples of its size_divisibility, from SMALLEST_IMAGE.

    Raises:
        UserError: if it cannot be exported, or the file does not do what the backbone does.
    """
    step, names = max(1, backbone.size_divisibility), list(backbone.output_shape())
    print(f"exporting the backbone, for sides of {SMALLEST_IMAGE} pixels or more, multiples of {step}")
    print(f"its outputs: {', '.join(names)}", flush=True)
    unit = max(32, step)
    inputs = [torch.randn(batch, 3, unit * height, unit * width) for batch, height, width in BACKBONE_SIZES]
    height, width = (Dim(name, min=-(-SMALLEST_IMAGE // step)) for name in ("height", "width"))
    sizes = {0: Dim("batch", min=1), 2: _times(step, height), 3: _times(step, width)}
    _export(_Maps(backbone), inputs, sizes, "image", names, output)


def _export(
    module: nn.Module,
    inputs: list[Tensor],
    sizes: dict[int, Dim],
    name: str,
    outputs: list[str],
    output: Path,
) -> None:
    def export(path: Path) -> None:
        with refused("this model has no ONNX graph", "See docs/export.md."), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            torch.onnx.export(
                module,
                (inputs[0],),
                path,
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=[name],
                output_names=outputs,
                external_data=False,
                verbose=False,
            )

    write_checked(output, export, lambda path: _largest_difference(path, module, inputs))


def _largest_difference(path: Path, module: nn.Module, inputs: list[Tensor]) -> float:
    """Of the outputs of a file under onnxruntime from those of the module, over all inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = [argument.name for argument in session.get_inputs()]
    differences = []
    for x in inputs:
        expected = module(x)
        expected = [expected] if isinstance(expected, Tensor) else expected
        found = session.run(None, {name: x.numpy()})
        pairs = zip(map(torch.from_numpy, found), expected, strict=True)
        differences.append(max(difference(*pair) for pair in pairs))
        print(f"  {' x '.join(map(str, x.shape))}: {differences[-1]:.1e}", flush=True)
    return max(differences)


def _times(step: int, size: Dim) -> Dim:
    return step * size if step > 1 else size


class _Maps(nn.Module):
    """A backbone's feature maps as a tuple, as ONNX has no dict."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image).values())
