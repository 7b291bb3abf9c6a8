#!/usr/bin/env python
"""Compare the non-local operation with the usual sequence of operations, and models with their baselines.

Contestants take turns in one process: their ratios are what carries over to other machines. The tables are
printed and written to benchmark.md. The exit code is 1 if the operation takes more than 1.05 of the usual
sequence's time, or holds a tensor above its budget.

For GPUs there is tools/gpu.py.

    python tools/benchmark.py --output output/benchmark
"""

import os
import platform
import sys
from argparse import Namespace
from datetime import date
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler of the CPU's memory is talkative

import torch
from benchmarking import models, operation
from benchmarking.measure import table
from tqdm import tqdm

from nl_detectron.engine import program_parser
from nl_detectron.errors import one_line_errors
from nl_detectron.files import atomic_write

PARTS = ("operation", "models")


def main() -> None:
    parser = program_parser(__doc__)
    parser.add_argument("--output", type=Path, default=Path("output/benchmark"), help="folder of the results")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="all by default")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the turns of a case, at least")
    args = parser.parse_args()
    with one_line_errors():
        args.output.mkdir(parents=True, exist_ok=True)
        is_met = run(args)
    sys.exit(0 if is_met else 1)


def run(args: Namespace) -> bool:
    """Measure the parts asked for, then print and write them; whether each requirement is met."""
    torch.manual_seed(0)
    pages, is_met = [_machine()], True
    if "operation" in args.parts:
        cases = _run_operation(args.seconds)
        text, is_met = operation.verdicts(cases)
        pages += [operation.operation_table(cases), text]
    if "models" in args.parts:
        names = tqdm(models.MODELS, desc="models", leave=False)
        pages.append(table([row for name in names for row in models.run_models(name)], models.HEADERS))
    with atomic_write(args.output / "benchmark.md") as unfinished:
        unfinished.write_text("\n\n".join(pages) + "\n")
    print(*pages, f"written: {args.output}", sep="\n\n")
    return is_met


def _run_operation(seconds: float) -> list[operation.Case]:
    sizes = [(f, *item) for f in operation.OPERATIONS for item in operation.SHAPES.items()]
    bar = tqdm(sizes, desc="operation", leave=False)
    return [case for size in bar for case in operation.run_case(*size, seconds)]


def _machine() -> str:
    where = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{platform.machine()}, {where}, PyTorch {torch.__version__}, {date.today()}"


if __name__ == "__main__":
    main()
