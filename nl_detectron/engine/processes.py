"""The processes of a run: those of torchrun, or of Detectron2's launcher (`--num-gpus`)."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import launch
from detectron2.utils import comm

from nl_detectron.compat import create_local_process_group
from nl_detectron.errors import UserError, reported_as_user_errors

_TORCHRUNS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def under_torchrun() -> bool:
    """Whether this process is one of several that torchrun, or something like it, has started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def count_processes(args: argparse.Namespace) -> int:
    """How many a command line asks for, on all machines."""
    if under_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(1, args.num_gpus) * args.num_machines


def run_in_processes(
    function: Callable[[CfgNode, argparse.Namespace], None], cfg: CfgNode, args: argparse.Namespace
) -> None:
    """Call `function(cfg, args)` in each process of the run, with Detectron2's communication set up."""
    timeout = timedelta(minutes=args.timeout)
    if under_torchrun():
        _join(cfg.MODEL.DEVICE, timeout)
        function(cfg, args)
        dist.destroy_process_group()  # not after an error: it could wait for a process that is no more
        return
    launch(
        function,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(cfg, args),
        timeout=timeout,
    )


def is_lost_process(error: BaseException | None) -> bool:
    """Whether an error says that another process no longer answers. Gloo has no type of its own for it."""
    of_backend = any(name in str(error).lower() for name in ("gloo", "nccl"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and of_backend)


@contextmanager
def lost_processes_reported(args: argparse.Namespace) -> Iterator[None]:
    """Within it, a process that no longer answers is one clear line in those that do."""
    try:
        yield
    except RuntimeError as error:
        if comm.get_world_size() == 1 or not is_lost_process(error):
            raise
        raise UserError(
            f"another process has ended, or did not answer in time (--timeout {args.timeout:g} minutes); see "
            f"its log, and --resume: {[*str(error).splitlines(), type(error).__name__][0]}"
        ) from error


def check_torchrun(args: argparse.Namespace, device: str) -> None:
    """Refuse an environment that lacks what torchrun sets, and two launchers at once."""
    if missing := [name for name in _TORCHRUNS if name not in os.environ]:
        raise UserError(
            f"RANK and WORLD_SIZE are set, as by torchrun; {', '.join(missing)} must be set too, and is not. "
            "Start with torchrun, or unset them."
        )
    if args.num_gpus != 1 or args.num_machines != 1:
        raise UserError(
            "--num-gpus and --num-machines must be left out under torchrun, which has --nproc-per-node and "
            f"--nnodes; got {args.num_gpus} and {args.num_machines}."
        )
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.startswith("cuda") and here > gpus:
        raise UserError(f"--nproc-per-node must be at most the {gpus} GPUs of this machine; got {here}.")


def _join(device: str, timeout: timedelta) -> None:
    """Join the processes that torchrun's environment describes."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
    with reported_as_user_errors(f"the other processes cannot be joined at {address}"):
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
