#!/usr/bin/env python
"""Export a trained model: TorchScript of a whole detector, ONNX of its non-local blocks or of its backbone.
Each file is loaded again and compared with eager PyTorch, at other sizes too, before it gets its name.

    python tools/export.py --config-file CONFIG --format torchscript-script --output model.ts \\
        --input IMAGE MODEL.WEIGHTS model_final.pth
    python tools/export.py --config-file CONFIG --format onnx-block --output FOLDER \\
        MODEL.WEIGHTS model_final.pth
"""

from pathlib import Path

import torch
from detectron2.config import CfgNode
from exporting import onnx_graphs, torchscript
from exporting.models import load_model, sample_images

from nl_detectron.config import check_placement_is_used
from nl_detectron.engine import read_config, tool_parser
from nl_detectron.errors import UserError, one_line_errors

FORMATS = ("torchscript-script", "torchscript-trace", "onnx-block", "onnx-backbone")


def main() -> None:
    parser = tool_parser(__doc__)
    parser.add_argument("--format", required=True, help=", ".join(FORMATS))
    parser.add_argument("--output", type=Path, required=True, help="file; for onnx-block a folder")
    parser.add_argument(
        "--input", type=Path, metavar="FILE", help="the image TorchScript is checked on; noise by default"
    )
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="weights that lack tensors of the model"
    )
    args = parser.parse_args()
    with one_line_errors(), torch.no_grad():
        check_format(args.format)
        cfg, given = read_config(args)
        check_placement_is_used(cfg, given)
        cfg.MODEL.DEVICE = "cpu"
        check_model(cfg, args.format)
        check_output(args.output, args.format)
        run(cfg, args.format, args.output, args.input, args.allow_mismatch)


def run(
    cfg: CfgNode, kind: str, output: Path, image: Path | None = None, allow_mismatch: bool = False
) -> None:
    """Build the model of a config and export it.

    Args:
        kind: one of FORMATS.
        output: a file; for onnx-block a folder.
        image: what TorchScript is checked on; None for noise.
        allow_mismatch: as `load_model` takes it.

    Raises:
        UserError: if this cannot be exported, or the file does not do what the model does.
    """
    if kind.startswith("onnx"):
        onnx_graphs.check_packages()
        model = load_model(cfg, allow_mismatch)
        if kind == "onnx-block":
            onnx_graphs.export_blocks(model, output)
        else:
            onnx_graphs.export_backbone(model.backbone, output)
        return
    images = sample_images(cfg, image)
    export = torchscript.export_script if kind == "torchscript-script" else torchscript.export_trace
    export(load_model(cfg, allow_mismatch), images, output)


def check_format(kind: str) -> None:
    """Refuse what no exporter does.

    Raises:
        UserError: with the reason, and what to use instead.
    """
    if kind in FORMATS:
        return
    remedy = "Choose one of these."
    if kind.startswith("onnx"):
        remedy = (
            "A whole detector is not exported to ONNX, as how many detections it has depends on their "
            "values: use onnx-backbone, or torchscript-script for all of it."
        )
    raise UserError(f"--format must be one of {', '.join(FORMATS)}; got {kind!r}. {remedy}")


def check_model(cfg: CfgNode, kind: str) -> None:
    """Refuse a model that this format cannot hold.

    Raises:
        UserError: with the key, the rule, the value and what to use instead.
    """
    if any(cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE):
        _check_deformable(cfg, kind)
    architecture = cfg.MODEL.META_ARCHITECTURE
    if kind.startswith("torchscript") and architecture not in ("GeneralizedRCNN", "RetinaNet"):
        raise UserError(
            f"MODEL.META_ARCHITECTURE must be GeneralizedRCNN or RetinaNet for {kind}; got {architecture!r}. "
            "Detectron2 can script and trace these two: use onnx-backbone for its backbone."
        )


def _check_deformable(cfg: CfgNode, kind: str) -> None:
    deformable = cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE
    if kind.startswith("torchscript"):
        raise UserError(
            f"MODEL.RESNETS.DEFORM_ON_PER_STAGE must have no True for {kind}; got {deformable}. TorchScript "
            "cannot hold Detectron2's deformable convolution: use onnx-backbone or onnx-block."
        )
    # A trial runs the model once, whatever it exports.
    if cfg.MODEL.RESNETS.DEFORM_MODULATED and (kind == "onnx-backbone" or not cfg.MODEL.WEIGHTS):
        raise UserError(
            f"MODEL.RESNETS.DEFORM_MODULATED must be False for {kind}; got True. Detectron2 has it for GPUs "
            "only, and exports are made on the CPU: use onnx-block with MODEL.WEIGHTS."
        )


def check_output(output: Path, kind: str) -> None:
    """Refuse a folder where a file is to be, and a file where a folder is, before minutes of work."""
    if kind == "onnx-block" and output.exists() and not output.is_dir():
        raise UserError(f"--output must be a folder for onnx-block; got {str(output)!r}, which is a file.")
    if kind != "onnx-block" and output.is_dir():
        raise UserError(f"--output must be a file for {kind}; got {str(output)!r}, which is a folder.")


if __name__ == "__main__":
    main()
