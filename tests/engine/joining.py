"""`joining.py DEVICE [fail once]`: a process that joins the others; the second takes DEVICE for its own."""

import os
import sys
import time
from argparse import Namespace

from detectron2.config import CfgNode
from detectron2.utils import comm

from nl_detectron import get_cfg
from nl_detectron.engine.distributed import run_in_processes
from nl_detectron.errors import one_line_errors
from nl_detectron_cli.arguments import train_net_parser


def run(cfg: CfgNode, args: Namespace) -> None:
    assert comm.all_gather(comm.get_rank()) == [0, 1]
    print("joined", flush=True)
    if "fail once" in sys.argv and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        sys.exit(3)


def main() -> None:
    cfg, device = get_cfg(), sys.argv[1]
    cfg.MODEL.DEVICE = device if os.environ["RANK"] == "1" else "cpu"
    if cfg.MODEL.DEVICE == "late":  # never, in fact
        return
    args = train_net_parser().parse_args(["--timeout", str(1 / 60) if device == "late" else "1"])
    before = time.monotonic()
    try:
        with one_line_errors():
            run_in_processes(run, cfg, args)
    finally:
        print(time.monotonic() - before, flush=True)


if __name__ == "__main__":
    main()
