"""Time and memory of two contestants that take turns, and tables of them."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

Run = Callable[[], object]
PASSES = ("forward", "forward+backward")


@dataclass
class Result:
    """Median seconds, peak of the bytes allocated during the run, and bytes of the largest allocation."""

    seconds: float
    peak: int
    largest: int


def compare(runs: Sequence[Run], device: torch.device, seconds: float, rounds: int = 3) -> list[Result]:
    """Let `runs` take turns for at least so many seconds and rounds, after a warm-up that measures memory."""
    memory = [measure_memory(run, device) for run in runs]
    times: list[list[float]] = []  # one list per round
    start = time.perf_counter()
    while len(times) < rounds or time.perf_counter() - start < seconds:
        order = [*range(len(runs))][
            :: -1 if len(times) % 2 else 1
        ]  # no one always comes after the same other
        durations = {k: _duration(runs[k], device) for k in order}
        times.append([durations[k] for k in range(len(runs))])
    medians = map(statistics.median, zip(*times, strict=True))
    return [Result(median, *sizes) for median, sizes in zip(medians, memory, strict=True)]


def measure_memory(run: Run, device: torch.device) -> tuple[int, int]:
    """Peak and largest allocation in bytes, as PyTorch's profiler sees the allocator of the device.

    It sees those inside of kernels and in the backward pass, but not the workspaces of BLAS libraries.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
        _synchronize(device)
    held = peak = largest = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]" and event.device_type().name.lower() == device.type:
            held += event.nbytes()  # negative when memory is freed
            peak, largest = max(peak, held), max(largest, event.nbytes())
    return peak, largest


def _duration(run: Run, device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def comparison(new: Result, old: Result) -> list[str]:
    """Cells of a table: milliseconds of both and their ratio, then the same for the peak in MB."""
    cells = []
    for a, b in ((1e3 * new.seconds, 1e3 * old.seconds), (new.peak / 1e6, old.peak / 1e6)):
        cells += [f"{a:.1f}", f"{b:.1f}", f"{a / b:.2f}"]
    return cells


def table(rows: Sequence[Sequence[str]], headers: Sequence[str]) -> str:
    """A Markdown table."""
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)
