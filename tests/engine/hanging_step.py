"""`hanging_step.py RANK PORT GRACE`: the first of two processes waits for the other, which sleeps."""

import sys
import time
from types import SimpleNamespace

import torch
import torch.distributed as dist

from nl_detectron.engine import signals


def main() -> None:
    rank, port, signals.GRACE = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    hook = signals.SignalHook(eval_period=1)
    hook.trainer = SimpleNamespace(iter=0, max_iter=10)
    hook.before_train()
    print("ready", flush=True)
    if rank == 0:
        dist.all_reduce(torch.zeros(1))
    hook.before_step()  # until then a signal interrupts at once, as in an evaluation
    time.sleep(60)


if __name__ == "__main__":
    main()
