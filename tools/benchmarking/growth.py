"""How time and memory grow with N = M."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .operation import OPERATIONS, Case

FUNCTIONS = tuple(OPERATIONS)[1:]  # Gaussian has the sequence of embedded Gaussian
SHAPES = {f"N = M = {n}": (1, n, n, 512) for n in (1024, 2048, 4096, 8192)}


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """k of the power law c N^k that fits best, on logarithmic axes."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def plot_growth(cases: Sequence[Case], path: Path, title: str) -> None:
    """Time and peak memory of forward and backward pass over N = M, with the exponents that fit."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    quantities = (("milliseconds", "seconds", 1e3), ("peak extra memory, MB", "peak", 1e-6))
    for axes, (label, attribute, unit) in zip(figure.subplots(1, 2), quantities, strict=True):
        for index, function in enumerate(FUNCTIONS):
            some = [case for case in cases if case.function == function and case.backward]
            sizes = [case.shape[1] for case in some]
            for who, style in (("ours", "o-"), ("usual", "x--")):
                values = [unit * getattr(getattr(case, who), attribute) for case in some]
                k = exponent(sizes, values)
                axes.loglog(sizes, values, style, color=f"C{index}", label=f"{function}, {who}: N^{k:.2f}")
            axes.set_xticks(sizes, sizes)
        axes.set(xlabel="positions N = M, 512 channels", ylabel=label)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
