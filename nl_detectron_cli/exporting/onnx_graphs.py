"""ONNX of the non-local blocks and of the backbone, for every batch, height and width.

By torch.export (dynamo=True), which keeps sizes as symbols and refuses where one would be frozen.
"""

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

from .checking import check_tensors, checked_file

# (batch, height, width) of a block's maps: the first for the export, all for the check. The last is that of
# a block in res4 for 400 x 672 pixels.
BLOCK_SIZES = ((2, 6, 8), (1, 5, 7), (3, 9, 4), (1, 2, 2), (1, 25, 42))
# The same of images for a backbone, in units of its size_divisibility.
BACKBONE_SIZES = ((2, 4, 5), (1, 3, 2), (3, 2, 3), (1, 7, 5))


def check_packages(kind: str) -> None:
    """Raise a UserError if a package for this format is missing, before a model is built."""
    packages = ("onnx", "onnxruntime") if kind == "onnx" else ("onnx", "onnxruntime", "onnxscript")
    for package in packages:
        if find_spec(package) is None:
            raise UserError(f"--format {kind} needs the package {package}. Run: pip install '.[export]'")


def export_blocks(model: nn.Module, folder: Path) -> None:
    """Write each non-local block of a model to `folder`/NAME.onnx: x (B, C, H, W) to z.

    H and W are 2 or more, or with `subsample="none"` 1 or more.
    """
    blocks = list(non_local_blocks(model))
    if not blocks:
        raise UserError("The model has no non-local block for onnx-block. Use a config with nl in its name.")
    for name, block in blocks:
        print(f"exporting {name}", flush=True)
        inputs = [torch.randn(batch, block.in_channels, *sides) for batch, *sides in BLOCK_SIZES]
        _export(block, inputs, "x", ["z"], folder / f"{name}.onnx")


def export_backbone(model: nn.Module, output: Path) -> None:
    """Write the backbone: normalised images (B, C, H, W) to its feature maps, whose names are printed.

    H and W are multiples of its size_divisibility, from 64.
    """
    backbone = model.backbone
    unit, names = max(32, backbone.size_divisibility), list(backbone.output_shape())
    print(f"exporting the backbone; its outputs: {', '.join(names)}", flush=True)
    inputs = [torch.randn(b, len(model.pixel_mean), unit * h, unit * w) for b, h, w in BACKBONE_SIZES]
    _export(backbone, inputs, "image", names, output)


def _export(
    module: nn.Module, inputs: Sequence[Tensor], name: str, outputs: Sequence[str], file: Path
) -> None:
    """Export by the first input (B, C, H, W), with B, H and W open, and check the file on all inputs."""
    import onnxruntime  # optional: `check_packages` has looked for it

    options = {"dynamo": True, "external_data": False, "verbose": False}
    options["dynamic_shapes"] = ({0: "batch", 2: "height", 3: "width"},)
    with checked_file(file) as path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns about itself
            torch.onnx.export(module, (inputs[0],), path, input_names=[name], output_names=outputs, **options)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for x in inputs:
            found = [torch.from_numpy(value) for value in session.run(None, {name: x.numpy()})]
            expected = module(x)
            expected = [expected] if isinstance(expected, Tensor) else list(expected.values())
            check_tensors(found, expected, " x ".join(map(str, x.shape)))
