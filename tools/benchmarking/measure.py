"""Time, peak memory and largest tensor of contestants that take turns."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from tabulate import tabulate
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

MAX_ROUNDS = 30


@dataclass
class Result:
    """The median of a contestant's seconds, and the bytes it had at once beyond those before it began."""

    seconds: float
    bytes: int


def compare(
    contestants: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, rounds: int = 3
) -> dict[str, Result]:
    """Let the contestants take turns for so many seconds and at least so many rounds.

    If the rounds would take ten times the seconds, there are fewer, but one. A round before them warms up and
    measures memory.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    peaks = {name: peak_memory(run, device) for name, run in contestants.items()}
    start = time.perf_counter()
    for done in range(MAX_ROUNDS):
        elapsed = time.perf_counter() - start
        if done and elapsed > seconds and (done >= rounds or elapsed > 10 * seconds > 0):
            break
        for name, run in contestants.items():
            times[name].append(_duration(run, device))
    return {name: Result(statistics.median(times[name]), peaks[name]) for name in contestants}


def _duration(run: Callable[[], object], device: torch.device) -> float:
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


class LargestTensor(TorchDispatchMode):
    """The most elements of a tensor that an operation puts out within it."""

    elements = 0

    def __torch_dispatch__(
        self, func: object, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(t, Tensor):
                self.elements = max(self.elements, t.untyped_storage().nbytes() // t.element_size())
        return out


def table(rows: list[list[str]], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
