"""Export a trained model: ONNX or TorchScript of a whole detector, ONNX of its non-local blocks or backbone.
Each file is loaded again and compared with eager PyTorch, at other sizes too, before it gets its name.

    python tools/export.py --config-file CONFIG --format onnx --output model.onnx --input IMAGE \\
        MODEL.WEIGHTS model_final.pth
    python tools/export.py --config-file CONFIG --format onnx-block --output FOLDER \\
        MODEL.WEIGHTS model_final.pth
"""

import argparse
from pathlib import Path

from .arguments import tool_parser

FORMATS = ("onnx", "torchscript-script", "torchscript-trace", "onnx-block", "onnx-backbone")


def main() -> None:
    args = _parser().parse_args()
    from nl_detectron_cli.exporting.program import run  # after parsing: see __init__

    run(args)


def _parser() -> argparse.ArgumentParser:
    parser = tool_parser(__doc__)
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--output", type=Path, required=True, help="a file; for onnx-block a folder")
    text = "the image that a detector is checked on (default: noise)"
    parser.add_argument("--input", type=Path, metavar="FILE", help=text)
    text = "accept weights that lack tensors of the model"
    parser.add_argument("--allow-mismatch", action="store_true", help=text)
    return parser
