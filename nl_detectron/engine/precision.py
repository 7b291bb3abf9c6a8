"""Half precision, by SOLVER.AMP.PRECISION: in training, evaluation and prediction, on GPUs and CPUs."""

import torch
from detectron2.config import CfgNode
from torch import nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import locate_in_float32


def autocast(cfg: CfgNode) -> torch.autocast:
    """PyTorch's autocast in the precision of the config; disabled if it names none."""
    name = _precision(cfg)
    dtype = getattr(torch, name) if name else None
    return torch.autocast(torch.device(cfg.MODEL.DEVICE).type, dtype, enabled=bool(name))


def use_precision(cfg: CfgNode, model: nn.Module) -> None:
    """Let the model itself, not only its training, compute in the precision of the config.

    Positions stay in float32, in the half precision of Detectron2's own trainer too.
    """
    locate_in_float32(model)
    context = autocast(cfg)

    def enter(*_: object) -> None:
        context.__enter__()

    def leave(*_: object) -> None:  # what a hook returns would replace the output
        context.__exit__(None, None, None)

    if cfg.SOLVER.AMP.PRECISION:
        model.register_forward_pre_hook(enter)
        model.register_forward_hook(leave, always_call=True)


def check_precision(cfg: CfgNode, trains: bool = True) -> None:
    """Refuse an unknown precision, and training in float16 without Detectron2's scaling of the gradients."""
    scales = cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE.startswith("cuda")
    if _precision(cfg) == "float16" and trains and not scales:
        raise UserError(
            "SOLVER.AMP.PRECISION float16 would lose small gradients: it needs a GPU and SOLVER.AMP.ENABLED, "
            "which scales them. Use bfloat16."
        )


def _precision(cfg: CfgNode) -> str:
    name = cfg.SOLVER.AMP.PRECISION
    if name not in ("", "float16", "bfloat16"):
        raise UserError(f"SOLVER.AMP.PRECISION must be 'float16', 'bfloat16' or ''; got {name!r}.")
    return name
