"""Time and peak memory of contestants that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

MAX_ROUNDS = 30


class Result(NamedTuple):
    """The median of a contestant's seconds, and the bytes it had at once beyond those before it began."""

    seconds: float
    bytes: int


def compare(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, rounds: int = 3
) -> dict[str, Result]:
    """Let the contestants take turns for so many seconds and at least so many rounds.

    Contestants for whom that takes ten times as long have fewer rounds, but one. A round before these
    warms up and measures memory; without another one it is timed too.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    peaks = {}
    for name, run in contestants.items():
        start = time.perf_counter()
        peaks[name] = peak_memory(run, device)
        if not rounds:
            times[name].append(time.perf_counter() - start)
    start = time.perf_counter()
    for done in range(MAX_ROUNDS if rounds else 0):
        elapsed = time.perf_counter() - start
        if elapsed > seconds and (done >= rounds or elapsed > 10 * seconds > 0):
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


def operation_counter() -> FlopCounterMode:
    """PyTorch's counter, which counts two for a multiply-add, told of fused attention on CPUs as well."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def count(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
        return sdpa_flop_count(query, key, value)

    return FlopCounterMode(display=False, custom_mapping={fused: count})


class Ceilings(NamedTuple):
    """What the machine reaches: multiply-adds and bytes a second."""

    multiply_adds: float
    bytes: float


def ceilings(device: torch.device, dtype: torch.dtype, side: int = 4096, seconds: float = 5) -> Ceilings:
    """Of a product of square matrices, and of a copy of 16 times as many values, read and written."""
    size = 16 * side**2
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    source = torch.empty(size, device=device, dtype=torch.uint8).fill_(1)
    target = torch.empty_like(source).copy_(source)
    results = compare(
        {"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)}, device, seconds
    )
    return Ceilings(side**3 / results["product"].seconds, 2 * size / results["copy"].seconds)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
