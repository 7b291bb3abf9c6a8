"""Half precision, by SOLVER.AMP.PRECISION: in training and evaluation, on GPUs and CPUs."""

import torch
from detectron2.config import CfgNode
from torch import nn

from nl_detectron.errors import ArgumentError

_KEY = "SOLVER.AMP.PRECISION"


def autocast(cfg: CfgNode) -> torch.autocast:
    """Within it, PyTorch computes in the precision of the config; in float32 if it names none.

    Raises:
        ArgumentError: (a ValueError) for another precision, or one that this device cannot train in.
    """
    check_precision(cfg)
    name = cfg.SOLVER.AMP.PRECISION
    dtype = getattr(torch, name) if name else None
    return torch.autocast(torch.device(cfg.MODEL.DEVICE).type, dtype, enabled=bool(name))


def use_precision(cfg: CfgNode, model: nn.Module) -> None:
    """Let the model itself, not only its training, compute in the precision of the config."""
    context = autocast(cfg)
    if not cfg.SOLVER.AMP.PRECISION:
        return

    def enter(module: nn.Module, inputs: tuple) -> None:
        context.__enter__()

    def leave(module: nn.Module, inputs: tuple, outputs: object) -> None:
        context.__exit__(None, None, None)

    model.register_forward_pre_hook(enter)
    model.register_forward_hook(leave, always_call=True)


def check_precision(cfg: CfgNode) -> None:
    """Refuse a precision that there is not, and float16 without Detectron2's scaling of the gradients."""
    name = cfg.SOLVER.AMP.PRECISION
    if name not in ("", "float16", "bfloat16"):
        raise ArgumentError(_KEY, "'float16', 'bfloat16' or '' (for Detectron2's own)", name, "Choose one.")
    if name == "float16" and not (cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE.startswith("cuda")):
        rule = "'bfloat16' without a GPU or SOLVER.AMP.ENABLED, which scales the gradients"
        raise ArgumentError(_KEY, rule, name, "float16 would lose small gradients.")
