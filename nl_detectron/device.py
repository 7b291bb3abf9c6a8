"""The device of a run: a GPU that is there and cannot be used is an error, not a slow run on the CPU."""

import re
import warnings
from pathlib import Path

import torch

from .errors import UserError

_NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "No HIP GPUs are available")  # or hidden
_NOT_COMPILED = "Torch not compiled with CUDA enabled"
_GPUS = Path("/proc/driver/nvidia/gpus")  # a folder for each, where the driver is loaded


def usable_device(device: str) -> str:
    """`device`, as in MODEL.DEVICE, or "cpu" instead of "cuda" on a machine without GPU.

    Raises:
        UserError: for another type of device, or with PyTorch's reason if it cannot use the GPU.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(f"MODEL.DEVICE must be cpu, cuda or cuda:k; got {device!r}. Set it to cpu.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "CUDA initialization")  # init() gives the same reason
        if device == "cpu" or torch.cuda.is_available():
            _, _, index = device.partition(":")
            if index and int(index) >= torch.cuda.device_count():
                raise UserError(f"MODEL.DEVICE is {device}, but there are {torch.cuda.device_count()} GPUs.")
            return device
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        if reason.startswith(_NO_GPU) or (reason == _NOT_COMPILED and not any(_GPUS.glob("*"))):
            return "cpu"
        remedy = "Install a PyTorch for this GPU and its driver, or set MODEL.DEVICE cpu."
        raise UserError(f"PyTorch cannot use the GPU: {reason.rstrip('.')}. {remedy}") from error
    return device
