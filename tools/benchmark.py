#!/usr/bin/env python
"""What the non-local operation costs against the usual sequence of operations, how that grows, and what a
block adds to whole models. Contestants take turns in one process: their ratios are what carries over to
other machines. Prints tables, and writes benchmark.json and benchmark.png.

    python tools/benchmark.py --output output/benchmark
    python tools/benchmark.py --device cuda --dtype bfloat16
"""

import argparse
import json
import os
import platform
from datetime import date
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler of the CPU's memory is talkative

import torch
from benchmarking import report
from benchmarking.measure import ceilings
from benchmarking.models import MODELS, run_models
from benchmarking.operation import OPERATIONS, SHAPES, growth_sizes, run_case, run_growth
from tqdm import tqdm

from nl_detectron.errors import UserError, one_line_errors

PARTS = ("operation", "growth", "models")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output/benchmark"), help="folder of the results")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="all by default")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the turns of a case, at least")
    args = parser.parse_args()
    with one_line_errors():
        if args.device != "cpu" and not torch.cuda.is_available():
            raise UserError(f"--device must be cpu where there is no GPU; got {args.device!r}.")
        args.output.mkdir(parents=True, exist_ok=True)
        run(args)


def run(args: argparse.Namespace) -> None:
    """Measure the parts asked for, print them, and write them down."""
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    limits = ceilings(device, dtype)
    machine = _machine(device, args.dtype)
    print(machine)
    print(f"ceilings: {limits.multiply_adds / 1e9:.0f} GMAC/s, {limits.bytes / 1e9:.0f} GB/s", flush=True)
    results: dict[str, object] = {"machine": machine, "ceilings": limits}

    if "operation" in args.parts:
        pairs = [(function, shape) for function in OPERATIONS for shape in SHAPES]
        cases = [
            case
            for function, shape in tqdm(pairs, desc="operation", leave=False)
            for case in run_case(function, shape, device, dtype, limits, args.seconds)
        ]
        print("", report.operation_table(cases), "", report.fused_table(cases), sep="\n", flush=True)
        results["operation"] = cases
    if "growth" in args.parts:
        growth = {function: {} for function in ("embedded_gaussian", "dot_product", "concatenation")}
        pairs = [(function, n) for function in growth for n in growth_sizes(function)]
        for function, n in tqdm(pairs, desc="growth", leave=False):
            growth[function][n] = run_growth(function, n, device, dtype, args.seconds)
        print("", report.growth_table(growth), sep="\n", flush=True)
        report.plot_growth(growth, args.output / "benchmark.png", machine)
        results["growth"] = growth
    if "models" in args.parts:
        models = [run_models(name, device, dtype) for name in tqdm(MODELS, desc="models", leave=False)]
        print("", report.model_table(models), sep="\n", flush=True)
        results["models"] = models

    unfinished = args.output / "benchmark.json.tmp"
    unfinished.write_text(json.dumps(_plain(results), indent=1))
    unfinished.rename(args.output / "benchmark.json")
    print(f"\nwritten: {args.output}")


def _plain(value: object) -> object:
    """Named tuples as dicts, which JSON would have as lists."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _machine(device: torch.device, dtype: str) -> str:
    where = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {where}"
    return f"{name}, {dtype}, PyTorch {torch.__version__}, {date.today()}"


if __name__ == "__main__":
    main()
