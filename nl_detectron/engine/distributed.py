"""The processes of a run: those of torchrun, or of Detectron2's launcher (`--num-gpus`)."""

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.config import CfgNode
from detectron2.engine import launch
from torch.distributed.elastic.utils.store import synchronize

from nl_detectron.compat import create_local_process_group
from nl_detectron.errors import UserError


def is_under_torchrun() -> bool:
    """Whether torchrun, or something like it, has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def count_processes(args: Namespace) -> int:
    """How many a command line asks for, on all machines."""
    if is_under_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(1, args.num_gpus) * max(1, args.num_machines)


def run_in_processes(function: Callable[[CfgNode, Namespace], None], cfg: CfgNode, args: Namespace) -> None:
    """Call `function(cfg, args)` in each process of the run, with Detectron2's communication set up."""
    timeout = timedelta(minutes=args.timeout)
    if is_under_torchrun():
        with lost_processes_reported(args):
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


def _backend(device: str) -> str:
    """gloo on CPUs, NCCL on GPUs. NCCL does not let processes share one: NL_DETECTRON_BACKEND=gloo does."""
    name = os.environ.get("NL_DETECTRON_BACKEND") or "nccl"
    if name not in ("nccl", "gloo"):
        raise UserError(f"NL_DETECTRON_BACKEND must be nccl or gloo; got {name!r}.")
    return name if device.startswith("cuda") else "gloo"


def _join(device: str, timeout: timedelta) -> None:
    """Join torchrun's processes, once all have told the others the type of their device."""
    store, rank, size = next(dist.rendezvous("env://", timeout=timeout))
    if size == int(os.environ["LOCAL_WORLD_SIZE"]):  # one machine, where --max-restarts keeps the store
        store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    own, seconds = device.partition(":")[0].encode(), timeout.total_seconds()
    ranks: dict[str, list[str]] = {}
    for other, name in enumerate(synchronize(store, own, rank, size, "device", seconds)):
        ranks.setdefault(name.decode(), []).append(str(other))
    if len(ranks) > 1:
        found = "; ".join(f"{name} in process {', '.join(ranks[name])}" for name in sorted(ranks))
        remedy = "Make GPUs available to all (see nvidia-smi, CUDA_VISIBLE_DEVICES), or set MODEL.DEVICE cpu."
        raise UserError(f"The processes have different types of devices: {found}. {remedy}")
    gpu = None
    if device.startswith("cuda"):
        gpu = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(gpu)
    dist.init_process_group(
        _backend(device),
        store=dist.PrefixStore("group", store),
        rank=rank,
        world_size=size,
        timeout=timeout,
        device_id=gpu if _backend(device) == "nccl" else None,
    )
    create_local_process_group(int(os.environ["LOCAL_WORLD_SIZE"]))


def is_lost_process(error: BaseException | None) -> bool:
    """Whether an error says that another process no longer answers. Gloo has no own type for it."""
    of_backend = any(name in str(error).lower() for name in ("gloo", "nccl"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and of_backend)


@contextmanager
def lost_processes_reported(args: Namespace) -> Iterator[None]:
    """Report a process that no longer answers in one line, in those that do."""
    try:
        yield
    except RuntimeError as error:
        if count_processes(args) == 1 or not is_lost_process(error):
            raise
        reason = str(error).partition("\n")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"The communication with another process failed: {reason}. If that has ended, or exceeded "
            f"--timeout {args.timeout:g} minutes, see its log, then --resume."
        ) from error


def check_processes(cfg: CfgNode, args: Namespace) -> None:
    """Refuse processes that cannot exist."""
    gpus, on_gpu = torch.cuda.device_count(), cfg.MODEL.DEVICE.startswith("cuda")
    if is_under_torchrun():
        if not {"LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= os.environ.keys():
            raise UserError("RANK and WORLD_SIZE are set, but not by torchrun. Start with it, or unset them.")
        if args.num_gpus != 1 or args.num_machines != 1:
            raise UserError(
                "Under torchrun, --nproc-per-node and --nnodes replace --num-gpus, --num-machines."
            )
        here = int(os.environ["LOCAL_WORLD_SIZE"])
        if here > gpus and _backend(cfg.MODEL.DEVICE) == "nccl":
            raise UserError(f"--nproc-per-node is {here}, but this machine has {gpus} GPUs.")
    elif args.num_gpus > 1 and not on_gpu:
        what = f"--num-gpus is {args.num_gpus}, but MODEL.DEVICE is {cfg.MODEL.DEVICE}"
        raise UserError(f"{what}. To use several processes on CPUs, start them with torchrun.")
    elif args.num_gpus > max(1, gpus) or (args.num_machines > 1 and not gpus):
        what = f"{args.num_gpus} GPUs on {args.num_machines} machines are asked for, but this one has {gpus}"
        raise UserError(f"{what}. To use several processes on CPUs, start them with torchrun.")
    if count_processes(args) > 1 and ":" in cfg.MODEL.DEVICE:
        raise UserError(f"MODEL.DEVICE {cfg.MODEL.DEVICE} is one GPU. Set it to cuda for several processes.")
