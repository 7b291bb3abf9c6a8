"""`on_gpu.py FILE`: every form and way of the operation on a GPU, at sizes of real models, against the usual
sequence, into a JSON file.
"""

import gc
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from benchmarking.measure import PASSES, Run
from benchmarking.operation import OPERATIONS, bind, make_inputs
from nl_detectron.files import atomic_write
from nl_detectron.layers import kernels, pairwise

# Images or RoIs B, positions N and M, channels D; at 800 x 1333 pixels, with batch 2.
SHAPES = {
    "res4": (2, 4200, 1050, 512),
    "res4, no subsampling": (2, 4200, 4200, 512),
    "res3": (2, 100 * 167, 50 * 83, 256),
    "res2": (2, 200 * 334, 100 * 167, 128),
    "keypoint head, 512 RoIs": (512, 196, 49, 256),
    "keypoint head, 512 RoIs, no subsampling": (512, 196, 196, 256),
}
PRECISIONS = ("bfloat16", "TF32", "float32")
WAYS = {"softmax": ("matrix", "fused"), "dot_product": ("matrix", "associative")}
WAYS["concatenation"] = ("matrix", "sorted")
SLABS_AT = "res2"  # where they are measured too, with half of the matrix kept
TURNS = 5
TURN = 4e-3  # seconds of runs in one turn, at least, so that launches overlap as in a model


def measure_all() -> Iterator[dict[str, object]]:
    """A row for each form, size, precision and pass, with milliseconds, bytes and launches of each way."""
    cases = list(product(PRECISIONS, SHAPES, OPERATIONS))
    for precision, positions, function in tqdm(cases, "operation", mininterval=2):
        torch.backends.cuda.matmul.allow_tf32 = precision == "TF32"
        b, n, m, channels = SHAPES[positions]
        d = 2 * channels if function == "gaussian" else channels
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        inputs = make_inputs(b, n, m, d, channels, torch.empty(0, device="cuda", dtype=dtype))
        form = "softmax" if "gaussian" in function else function
        chosen = kernels.select_kernel(form, *inputs[:3])
        for backward in (False, True):
            gc.collect()  # graphs of the pass before, which would be freed during a run
            ours, usual = OPERATIONS[function]
            runs = {"usual": bind(usual, inputs, backward)}
            slabs = ("slabs",) if positions == SLABS_AT and form != "dot_product" else ()
            for way in dict.fromkeys((chosen, *WAYS[form], *slabs)):
                runs[way] = bind(ours, inputs, backward)
            row = {"positions": positions, "function": function, "precision": precision}
            forced = partial(_forced, chosen, b * n * m * dtype.itemsize)
            ways = take_turns(runs, forced, precision == "bfloat16")
            yield row | {"pass": PASSES[backward], "chosen": chosen, "ways": ways}


def take_turns(
    runs: dict[str, Run], forced: Callable[[str], AbstractContextManager], counts: bool
) -> dict[str, dict[str, float]]:
    """Milliseconds (median of the turns), peak MB and launches of each run; {} for one that does not fit."""
    found = {}
    for name, run in runs.items():
        with forced(name):
            found[name] = _first_look(run, counts)
    times = {name: [] for name, cost in found.items() if cost}
    for turn in range(TURNS):
        for name in list(times)[:: -1 if turn % 2 else 1]:
            repeats = max(1, min(50, round(TURN / found[name]["ms"] * 1e3)))
            with forced(name):
                times[name].append(_milliseconds(runs[name], repeats))
    return {name: cost and cost | {"ms": statistics.median(times[name])} for name, cost in found.items()}


@contextmanager
def _forced(chosen: str, matrix: int, way: str) -> Iterator[None]:
    """Our operation goes that way; the chosen one has to choose. `matrix` is its size in bytes."""

    def select(*_: object) -> str:
        return way

    if way == chosen:
        yield
        return
    share = matrix / 2 / torch.cuda.get_device_properties(0).total_memory
    with (
        mock.patch.object(pairwise, "select_kernel", select),
        mock.patch.object(kernels, "MEMORY_SHARE", share),
    ):
        yield


def _first_look(run: Run, counts: bool) -> dict[str, float]:
    try:
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        cost = {"ms": _milliseconds(run, 1), "MB": peak / 1e6}
        return cost | {"launches": _launches(run)} if counts else cost
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return {}


def _launches(run: Run) -> int:
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events()]
    return sum(name.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for name in names)


def _milliseconds(run: Run, repeats: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / repeats


def main() -> None:
    torch.manual_seed(0)
    rows = []
    for row in measure_all():
        rows.append(row)
        with atomic_write(Path(sys.argv[1])) as unfinished:  # what is measured stays, if time runs out
            unfinished.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
