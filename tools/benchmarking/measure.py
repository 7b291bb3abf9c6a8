"""Time, peak memory and largest tensor of contestants that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass
class Result:
    """Of a contestant, the median of its seconds, the bytes that it had at once beyond those before it began,
    and the elements of its largest tensor.
    """

    seconds: float
    bytes: int
    elements: int


def compare(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, rounds: int = 3
) -> dict[str, Result]:
    """Let the contestants take turns for so many seconds and rounds; if these take ten times as long, for fewer.

    A round before them warms up and measures memory.
    """
    memory = {name: _memory(run, device) for name, run in contestants.items()}
    times: list[list[float]] = []  # of each round
    start, elapsed = time.perf_counter(), 0.0
    while not times or ((elapsed < seconds or len(times) < rounds) and elapsed < 10 * seconds):
        times.append([_duration(run, device) for run in contestants.values()])
        elapsed = time.perf_counter() - start
    medians = map(statistics.median, zip(*times, strict=True))
    return {name: Result(median, *memory[name]) for name, median in zip(contestants, medians, strict=True)}


def _duration(run: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def _memory(run: Callable[[], object], device: torch.device) -> tuple[int, int]:
    with _LargestTensor() as largest:
        return peak_memory(run, device), largest.elements


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


class _LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.elements = max(self.elements, t.untyped_storage().nbytes() // t.element_size())
        return out


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
