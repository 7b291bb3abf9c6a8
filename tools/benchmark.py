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
from dataclasses import asdict
from datetime import date
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # PyTorch's profiler of the CPU's memory is talkative

import torch
from benchmarking.growth import growth_table, plot_growth, run_growth
from benchmarking.models import MODELS, model_table, run_models
from benchmarking.operation import OPERATIONS, SHAPES, operation_table, run_case, verdicts
from tqdm import tqdm

from nl_detectron.engine import output_path
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.files import atomic_write

PARTS = ("operation", "growth", "models")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.register("type", Path, output_path)
    parser.add_argument("--output", type=Path, default=Path("output/benchmark"), help="folder of the results")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="all by default")
    parser.add_argument("--seconds", type=float, default=0.5, help="for the turns of a case, at least")
    args = parser.parse_args()
    with one_line_errors():
        if args.device != "cpu" and not torch.cuda.is_available():
            raise UserError(f"--device {args.device} needs a GPU, and there is none. Use --device cpu.")
        args.output.mkdir(parents=True, exist_ok=True)
        run(args)


def run(args: argparse.Namespace) -> None:
    """Measure the parts asked for, print them, and write them down."""
    torch.manual_seed(0)
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    results: dict[str, object] = {"machine": _machine(device, args.dtype)}
    end = ""
    print(results["machine"], flush=True)
    if "operation" in args.parts:
        pairs = tqdm([(f, shape) for f in OPERATIONS for shape in SHAPES], desc="operation", leave=False)
        cases = [case for f, shape in pairs for case in run_case(f, shape, device, dtype, args.seconds)]
        print("", operation_table(cases), sep="\n", flush=True)
        results["operation"] = cases
        end = f"\n{verdicts(cases)}"
    if "growth" in args.parts:
        growth = run_growth(device, dtype, args.seconds)
        print("", growth_table(growth), sep="\n", flush=True)
        plot_growth(growth, args.output / "benchmark.png", results["machine"])
        results["growth"] = growth
    if "models" in args.parts:
        models = [run_models(name, device, dtype) for name in tqdm(MODELS, desc="models", leave=False)]
        print("", model_table(models), sep="\n", flush=True)
        results["models"] = models
    with atomic_write(args.output / "benchmark.json") as unfinished:
        unfinished.write_text(json.dumps(results, indent=1, default=asdict))
    print(end, f"written: {args.output}", sep="\n")


def _machine(device: torch.device, dtype: str) -> str:
    where = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()}, {where}"
    return f"{name}, {dtype}, PyTorch {torch.__version__}, {date.today()}"


if __name__ == "__main__":
    main()
