"""The page of tools/gpu.py: its bars, and its figures as tables."""

import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import detectron2
import torch
import torchvision

from nl_detectron import __version__

from .measure import table

Row = Mapping[str, object]
OPERATION_BAR, STEP_BAR, AP_BAR = 1.05, 4.0, 0.5


def page(found: Mapping[str, object]) -> tuple[str, bool]:
    """Markdown, and whether all bars are met."""
    bars = list(_bars(found))
    verdicts = [f"- {'met' if is_met else 'NOT met'}: {text}" for text, is_met in bars]
    steps = [[step["name"], step["outcome"], f"{step['seconds']:.0f}"] for step in found["steps"]]
    parts = [
        f"# On a GPU\n\n{_versions()}",
        "## Bars\n\n" + "\n".join(verdicts),
        "## Steps\n\n" + table(steps, ["step", "outcome", "seconds"]),
        "## The operation\n\n" + _operation_table(found["operation"]),
        "## Training steps\n\n" + _model_table(found["models"]),
        "## Shapes of 640 pixels\n\n" + _shapes_table(found["shapes"]),
    ]
    return "\n\n".join(parts) + "\n", all(is_met for _, is_met in bars)


def _versions() -> str:
    card = torch.cuda.get_device_name()
    versions = f"PyTorch {torch.__version__}, torchvision {torchvision.__version__}"
    python = f"Python {platform.python_version()}, Detectron2 {detectron2.__version__}"
    return f"{card}, {date.today()}: {versions}, {python}, nl_detectron {__version__}."


def _bars(found: Mapping[str, object]) -> Iterable[tuple[str, bool]]:
    for step in found["steps"]:
        passed = step["outcome"] == "passed"
        counts = f", {found['tests']}" if step["name"] == "tests" and found["tests"] else ""
        yield f"{step['name']}: {step['outcome']}{counts}", passed
    if ratios := [(_ratio(row), row) for row in found["operation"]]:
        worst, row = max(ratios, key=lambda pair: pair[0])
        where = ", ".join(row[key] for key in ("function", "positions", "precision", "pass"))
        text = (
            f"the operation takes at most {OPERATION_BAR} of the usual time; the worst of {len(ratios)} is "
        )
        yield f"{text}{worst:.3f} ({where})", worst <= OPERATION_BAR
    for row in found["models"]:
        share = _share(row)
        text = f"the block takes less than {STEP_BAR:g} % of a step of {row['model']} in {row['precision']}"
        yield f"{text}: {share:.1f} %", share < STEP_BAR
    for task in ("bbox", "segm"):
        for device in ("cuda", "cpu"):
            if changes := _changes(found["shapes"], task, device):
                mean = statistics.mean(changes)
                each = ", ".join(f"{change:+.2f}" for change in changes)
                text = f"bfloat16 moves {task} AP of models trained in float32 by at most {AP_BAR} on average"
                yield f"{text}, evaluated on {device}: {each}", abs(mean) <= AP_BAR


def _ratio(row: Row) -> float:
    """Our time, relative to the usual: infinite if ours ran out of memory, 0 if only the usual did."""
    usual, ours = row["ways"]["usual"], row["ways"][row["chosen"]]
    if not ours:
        return float("inf")
    return ours["ms"] / usual["ms"] if usual else 0.0


def _share(row: Row) -> float:
    """The block's part of a step, in percent."""
    ours, baseline = row["+1 NL"]["ms"], row["baseline"]["ms"]
    return 100 * (ours - baseline) / ours


def _changes(rows: Sequence[Row], task: str, device: str) -> list[float]:
    trained = {
        row["seed"]: row["AP"] for row in rows if "device" not in row and row["trained in"] == "float32"
    }
    evaluated = [row for row in rows if row.get("device") == device]
    return [row["AP"][task] - trained[row["seed"]][task] for row in evaluated]


def _operation_table(rows: Sequence[Row]) -> str:
    """A row for each form, size and precision; times are in ms, forward / forward and backward."""
    cells = []
    for forward, both in zip(rows[::2], rows[1::2], strict=False):
        chosen = forward["chosen"]
        others = [way for way in forward["ways"] if way not in ("usual", chosen)]
        where = [forward[key] for key in ("function", "positions", "precision")]
        times = [_both(forward, both, way, "ms", ".2f") for way in (chosen, "usual", *others)]
        theirs = "; ".join(map(" ".join, zip(others, times[2:], strict=True)))
        ratios = f"{_ratio(forward):.2f} / {_ratio(both):.2f}"
        memory = [_cost(both, way, "MB", ".0f") for way in (chosen, "usual")]
        launches = [_both(forward, both, way, "launches", "d") for way in (chosen, "usual")]
        cells.append([*where, chosen, *times[:2], ratios, *memory, *launches, theirs])
    headers = "f|positions|precision|kernel|ours|usual|ratio|ours MB|usual MB|our launches|usual launches"
    return table(cells, [*headers.split("|"), "other kernels"])


def _both(forward: Row, both: Row, way: str, key: str, form: str) -> str:
    costs = [_cost(row, way, key, form) for row in (forward, both)]
    return " / ".join(costs) if any(costs) else ""


def _cost(row: Row, way: str, key: str, form: str) -> str:
    """Empty where it was not measured, or does not fit into the memory."""
    return format(row["ways"][way][key], form) if key in row["ways"][way] else ""


def _model_table(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        ours, baseline = row["+1 NL"], row["baseline"]
        times = [f"{each['ms']:.1f}" for each in (ours, baseline)]
        memory = [f"{each['MB']:.0f}" for each in (ours, baseline)]
        cells.append([row["model"], row["precision"], *times, f"{_share(row):.1f} %", *memory])
    headers = ["model", "precision", "+1 NL ms", "baseline ms", "block's share", "+1 NL MB", "baseline MB"]
    return table(cells, headers)


def _shapes_table(rows: Sequence[Row]) -> str:
    cells = []
    for row in sorted(rows, key=lambda row: (row["trained in"], row.get("device", ""), row["seed"])):
        where = [row["seed"], row["trained in"], row.get("evaluated in", row["trained in"])]
        ap = [f"{row['AP'][task]:.1f}" for task in ("bbox", "segm")]
        cells.append([*map(str, where), row.get("device", "cuda"), *ap])
    return table(cells, ["seed", "trained in", "evaluated in", "on", "box AP", "mask AP"])
