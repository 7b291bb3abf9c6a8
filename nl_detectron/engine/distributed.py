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
from nl_detectron.errors import UserError

_TORCHRUN_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def is_under_torchrun() -> bool:
    """Whether torchrun, or something like it, has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first_on_machine() -> bool:
    """Whether this process is the one of its machine that checks what a run needs."""
    return not is_under_torchrun() or os.environ.get("LOCAL_RANK", "0") == "0"


def count_processes(args: argparse.Namespace) -> int:
    """How many a command line asks for, on all machines."""
    if is_under_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(1, args.num_gpus) * args.num_machines


def run_in_processes(
    function: Callable[[CfgNode, argparse.Namespace], None], cfg: CfgNode, args: argparse.Namespace
) -> None:
    """Call `function(cfg, args)` in each process of the run, with Detectron2's communication set up."""
    timeout = timedelta(minutes=args.timeout)
    if is_under_torchrun():
        _join(cfg.MODEL.DEVICE, timeout)
        function(cfg, args)
        dist.destroy_process_group()  # not after an error: it could wait for a process that is gone
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
    """Report a process that no longer answers in one line, in those that do."""
    try:
        yield
    except RuntimeError as error:
        if comm.get_world_size() == 1 or not is_lost_process(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"another process has ended, or did not answer within --timeout {args.timeout:g} minutes: {reason}. "
            "See its log, then --resume."
        ) from error


def check_launcher(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Whether the processes asked for can exist, and can share the images of a step.

    Raises:
        UserError: naming the flag or key, and the remedy.
    """
    if args.skip_broken < 0 or args.timeout <= 0:
        flags = f"{args.skip_broken} and {args.timeout:g}"
        raise UserError(f"--skip-broken must be 0 or more and --timeout above 0 minutes; got {flags}.")
    if is_under_torchrun():
        _check_torchrun(args, cfg.MODEL.DEVICE)
    else:
        _check_gpus(args, cfg.MODEL.DEVICE)
    processes, images = count_processes(args), cfg.SOLVER.IMS_PER_BATCH
    if processes > 1 and ":" in cfg.MODEL.DEVICE:
        raise UserError(
            f"MODEL.DEVICE {cfg.MODEL.DEVICE!r} is one GPU. Set it to 'cuda' for several processes."
        )
    parts = cfg.SOLVER.REFERENCE_WORLD_SIZE or processes
    if not args.eval_only and (images < 1 or images % parts):
        what = "SOLVER.REFERENCE_WORLD_SIZE" if cfg.SOLVER.REFERENCE_WORLD_SIZE else "the processes"
        raise UserError(
            f"SOLVER.IMS_PER_BATCH must be a positive multiple of {parts} ({what}); got {images}."
        )


def _check_gpus(args: argparse.Namespace, device: str) -> None:
    """For Detectron2's own launcher."""
    available = torch.cuda.device_count() if device != "cpu" or args.num_gpus <= 1 else 0
    if not 0 <= args.num_gpus <= max(available, 1):
        what = f"this machine has {available} GPUs" if available else "there is no GPU to use"
        raise UserError(f"--num-gpus is {args.num_gpus}, but {what}. torchrun starts processes on CPUs too.")
    if args.num_machines > 1 and not available:
        raise UserError("Several machines need a GPU each (--num-gpus), or torchrun.")
    if args.num_machines < 1 or not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            "--num-machines must be at least 1 and --machine-rank from 0 to one less; "
            f"got {args.num_machines} and {args.machine_rank}."
        )


def _check_torchrun(args: argparse.Namespace, device: str) -> None:
    if missing := [name for name in _TORCHRUN_VARIABLES if name not in os.environ]:
        raise UserError(
            f"RANK and WORLD_SIZE are set, as by torchrun, but {', '.join(missing)} are not. Start with "
            "torchrun, or unset them."
        )
    if args.num_gpus != 1 or args.num_machines != 1:
        raise UserError(
            "Under torchrun, give --nproc-per-node and --nnodes instead of --num-gpus and --num-machines."
        )
    here, gpus = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if device.startswith("cuda") and here > gpus:
        raise UserError(f"--nproc-per-node is {here}, but this machine has {gpus} GPUs.")


def _join(device: str, timeout: timedelta) -> None:
    """Join the processes that torchrun's environment describes."""
    on_gpu = device.startswith("cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=timeout)
    except (dist.DistError, ValueError) as error:
        address = ":".join(os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT"))
        reason = str(error).partition("\n")[0]
        raise UserError(f"the other processes at {address} cannot be reached: {reason}") from error
    create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))
