"""How the operation's time and memory grow with the number of positions."""

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from .measure import Result, compare, table
from .operation import PASSES, make_inputs, passes

SIZES = (1024, 2048, 4096, 8192, 16384)  # N = M
LARGEST_USUAL = 4096  # as the usual matrices of the largest size take 3 GB
LARGEST_SOFTMAX = 8192  # which takes a quarter of a minute on two cores at the largest
CHANNELS = 512
FUNCTIONS = ("embedded_gaussian", "dot_product", "concatenation")
Growth = dict[str, dict[str, dict[str, dict[int, Result]]]]  # by function, pass, contestant and N


def run_growth(device: torch.device, dtype: torch.dtype, seconds: float) -> Growth:
    growth: Growth = {f: {name: {"ours": {}, "usual": {}} for name in PASSES} for f in FUNCTIONS}
    pairs = [(f, n) for f in FUNCTIONS for n in SIZES if f != "embedded_gaussian" or n <= LARGEST_SOFTMAX]
    for function, n in tqdm(pairs, desc="growth", leave=False):
        inputs = make_inputs(1, n, n, CHANNELS, CHANNELS, device, dtype)
        for name in PASSES:
            contestants = passes(function, inputs, backward=name == PASSES[1])
            if n > LARGEST_USUAL:
                del contestants["usual"]
            for who, result in compare(contestants, device, seconds).items():
                growth[function][name][who][n] = result
    return growth


def exponent(values: dict[int, float]) -> float:
    """k of the power law c n^k that fits best, on logarithmic axes."""
    return float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])


def growth_table(growth: Growth) -> str:
    """Milliseconds and megabytes over N = M, and the exponents that fit."""
    rows = []
    for function, by_pass in growth.items():
        for name, contestants in by_pass.items():
            ours = contestants["ours"]
            cells = {n: f"{1e3 * r.seconds:.1f} ms, {r.bytes / 1e6:.0f} MB" for n, r in ours.items()}
            row = [function, name, *(cells.get(n, "") for n in SIZES)]
            time, memory = ({n: getattr(r, key) for n, r in ours.items()} for key in ("seconds", "bytes"))
            rows.append([*row, f"{exponent(time):.2f}", f"{exponent(memory):.2f}"])
    return table(rows, ["f", "pass", *(f"N = M = {n}" for n in SIZES), "time: N^k", "memory: N^k"])


def plot_growth(growth: Growth, path: Path, title: str) -> None:
    """Time and peak memory of forward and backward pass over N = M, ours and the usual sequence."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    quantities = (("milliseconds", "seconds", 1e3), ("peak extra memory, MB", "bytes", 1e-6))
    for axes, (label, attribute, unit) in zip(figure.subplots(1, 2), quantities, strict=True):
        for index, (function, by_pass) in enumerate(growth.items()):
            for who, style in (("ours", "o-"), ("usual", "x--")):
                values = {n: getattr(r, attribute) * unit for n, r in by_pass[PASSES[1]][who].items()}
                name = f"{function}, {who}"
                axes.loglog([*values], [*values.values()], style, color=f"C{index}", label=name)
        axes.set(xlabel=f"positions N = M, {CHANNELS} channels", ylabel=label)
        axes.set_xticks(SIZES, map(str, SIZES))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
