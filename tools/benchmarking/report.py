"""Tables and the plot of a benchmark."""

from pathlib import Path

from matplotlib.figure import Figure
from tabulate import tabulate

from .measure import Result
from .models import MODELS, ModelCase
from .operation import Case, exponent

# Of a pairwise function: of each N = M, of each pass, of each contestant.
Growth = dict[str, dict[int, dict[str, dict[str, Result]]]]
PASSES = ("forward", "forward+backward")


def operation_table(cases: list[Case]) -> str:
    """A line a case; "floor" is the lowest ratio that the machine's ceilings and our way allow."""
    headers = ["f", "positions", "N x M", "pass", "way", "ours ms", "usual ms", "ratio", "floor"]
    headers += ["ours MB", "usual MB", "ratio", "floor", "error", "usual"]
    rows = []
    for case in cases:
        ours, usual = case.results["ours"], case.results["usual"]
        row = [case.function, case.shape, f"{case.sizes.n} x {case.sizes.m}", PASSES[case.backward], case.way]
        row += [f"{1e3 * ours.seconds:.1f}", f"{1e3 * usual.seconds:.1f}"]
        row += [f"{r.seconds / usual.seconds:.2f}" for r in (ours, case.floor)]
        row += [f"{ours.bytes / 1e6:.1f}", f"{usual.bytes / 1e6:.1f}"]
        row += [f"{r.bytes / usual.bytes:.2f}" for r in (ours, case.floor)]
        rows.append(row + [f"{case.errors[who]:.1e}" for who in ("ours", "usual")])
    return _table(rows, headers)


def fused_table(cases: list[Case]) -> str:
    """PyTorch's fused attention on the cases that it was measured on, as ratios to the usual sequence."""
    rows = []
    for case in cases:
        if "fused" in case.results:
            ours, usual, fused = (case.results[who] for who in ("ours", "usual", "fused"))
            row = [case.shape, PASSES[case.backward]]
            row += [f"{r.seconds / usual.seconds:.2f}" for r in (ours, fused)]
            rows.append(row + [f"{r.bytes / usual.bytes:.2f}" for r in (ours, fused)])
    return _table(rows, ["embedded_gaussian", "pass", "ours time", "fused time", "ours MB", "fused MB"])


def growth_table(growth: Growth) -> str:
    """Milliseconds and megabytes over N = M, and the exponents that fit."""
    rows = []
    sizes = max(growth.values(), key=len)
    for function, by_size in growth.items():
        for name in PASSES:
            ours = {n: passes[name]["ours"] for n, passes in by_size.items()}
            times = {n: result.seconds for n, result in ours.items()}
            peaks = {n: result.bytes for n, result in ours.items()}
            cells = {n: f"{1e3 * r.seconds:.1f} ms, {r.bytes / 1e6:.0f} MB" for n, r in ours.items()}
            row = [function, name, *(cells.get(n, "") for n in sizes)]
            rows.append([*row, f"{exponent(times):.2f}", f"{exponent(peaks):.2f}"])
    return _table(rows, ["f", "pass", *(f"N = M = {n}" for n in sizes), "time: N^k", "memory: N^k"])


def model_table(cases: list[ModelCase]) -> str:
    """The baseline, and what a block adds to it."""
    headers = ["model", "quantity", "baseline", "+1 NL", "added"]
    rows = []
    for case in cases:
        rows.append(_added(case.name, "parameters, M", case.parameters, 1e6))
        for kind, counts in case.multiply_adds.items():
            rows.append(_added(case.name, f"GMAC, {kind}", counts, 1e9))
        for name, results in (("inference", case.inference), ("training", case.training)):
            seconds = {who: result.seconds for who, result in results.items()}
            peaks = {who: result.bytes for who, result in results.items()}
            is_cold = name == "training" and MODELS[case.name][1] == 0
            *row, added = _added(case.name, f"{name}, s", seconds, 1)
            rows.append([*row, "(once, cold)" if is_cold else added])
            rows.append(_added(case.name, f"{name}, MB", peaks, 1e6))
    return _table(rows, headers)


def _added(model: str, quantity: str, values: dict[str, float], unit: float) -> list[str]:
    baseline, with_block = values["baseline"], values["+1 NL"]
    row = [model, quantity, f"{baseline / unit:.2f}", f"{with_block / unit:.2f}"]
    return [*row, f"{with_block / baseline - 1:+.1%}"]


def _table(rows: list[list[str]], headers: list[str]) -> str:
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def plot_growth(growth: Growth, path: Path, title: str) -> None:
    """Time and peak memory of forward and backward pass over N = M, ours and the usual sequence."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    quantities = (("milliseconds", "seconds", 1e3), ("peak extra memory, MB", "bytes", 1e-6))
    for axes, (label, attribute, unit) in zip(figure.subplots(1, 2), quantities, strict=True):
        for index, (function, by_size) in enumerate(growth.items()):
            for who, style in (("ours", "o-"), ("usual", "x--")):
                points = {
                    n: getattr(passes[PASSES[1]][who], attribute) * unit
                    for n, passes in by_size.items()
                    if who in passes[PASSES[1]]
                }
                label_ = f"{function}, {who}"
                axes.loglog(list(points), list(points.values()), style, color=f"C{index}", label=label_)
        axes.set(xlabel="positions N = M, 512 channels", ylabel=label)
        sizes = list(max(growth.values(), key=len))
        axes.set_xticks(sizes, list(map(str, sizes)))
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
