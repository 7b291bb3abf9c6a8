"""Time and peak memory of contestants that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

MAX_ROUNDS = 30


class Result(NamedTuple):
    """The median of a contestant's seconds, and the bytes it had at once beyond those before it began."""

    seconds: float
    bytes: int


def compare(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, rounds: int = 3
) -> dict[str, Result]:
    """Let the contestants take turns, for at least so many rounds and about so many seconds.

    A round before these warms up and measures memory; without another one it is timed too.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    peaks = {}
    for name, run in contestants.items():
        start = time.perf_counter()
        peaks[name] = peak_memory(run, device)
        if not rounds:
            times[name].append(time.perf_counter() - start)
    end = time.perf_counter() + seconds
    for done in range(MAX_ROUNDS if rounds else 0):
        if done >= rounds and time.perf_counter() > end:
            break
        for name, run in contestants.items():
            times[name].append(duration(run, device))
    return {name: Result(statistics.median(times[name]), peaks[name]) for name in contestants}


def duration(run: Callable[[], object], device: torch.device) -> float:
    """Seconds."""
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def peak_memory(run: Callable[[], object], device: torch.device) -> int:
    """Bytes at once beyond those before: of CUDA's allocator, or as PyTorch's profiler sees the CPU's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        _synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


class Ceilings(NamedTuple):
    """What the machine reaches: multiply-adds and bytes a second."""

    multiply_adds: float
    bytes: float


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Of a large matrix product, and of a large copy, read and written."""
    side, size = 4096, 2**28
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    source = torch.empty(size, device=device, dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source).copy_(source)
    results = compare(
        {"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)}, device, seconds=5
    )
    return Ceilings(side**3 / results["product"].seconds, 2 * size / results["copy"].seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
