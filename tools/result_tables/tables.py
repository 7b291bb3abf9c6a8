"""The table: a row for each baseline, variant and difference, and the paper's own figures below its rows."""

import csv
import io
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
from detectron2.config import CfgNode
from tabulate import tabulate

from nl_detectron import model_zoo
from nl_detectron.engine import Run
from nl_detectron.errors import UserError
from nl_detectron.inspect import extra_cost

from .pairing import BASELINE, SCORES, Comparison, blocks_of, model_of, scores_of
from .paper import TABLE_5, TABLE_6, row_in_paper, scores_in_paper

# All columns, in their order; `_rows` fills them. A column without values is left out.
COLUMNS = ("model", "steps", "tested on", "blocks", "runs", *SCORES.values())
COLUMNS += ("multiply-adds", "parameters", "training time", "commit")
DIFFERENCE = "difference"
PAPERS = "the paper's"  # in the place of the seeds
FORMATS = {"text": "simple", "markdown": "github", "csv": ""}  # and what tabulate calls them
# By column. Beside "box AP" there may be "box AP spread", its sample standard deviation over the seeds.
Row = dict[str, str | float]


def result_table(comparisons: Sequence[Comparison], configs: Sequence[str] = ()) -> list[Row]:
    """The rows of what was trained, the paper's in its order, and after them those that were not.

    Args:
        configs: shipped configs of the paper's rows that are shown trained or not.
    """
    order = [*TABLE_5, *TABLE_6, None]
    comparisons = sorted(comparisons, key=lambda each: order.index(row_in_paper(each.baselines[0])))
    rows: list[Row] = []
    shown: list[Run] = []  # several variants share the rows of their baselines
    for comparison, label in zip(comparisons, labels_of(comparisons), strict=True):
        rows += _rows(comparison, label, with_baseline=comparison.baselines != shown)
        shown = comparison.baselines
    trained = {row_in_paper(run) for each in comparisons for run in (each.baselines[0], each.runs[0])}
    for config in configs:
        if config not in trained:
            cfg = model_zoo.get_config(config)
            row = {**_label(cfg), "steps": "", "blocks": blocks_of(cfg), "runs": "not trained"}
            rows += [row, {**row, "runs": PAPERS, **_means([scores_in_paper(config)])}]
    return rows


def _rows(comparison: Comparison, label: Row, with_baseline: bool) -> list[Row]:
    """Baseline, variant and difference; below each, what the paper has for it."""
    _, blocks, baselines, runs = comparison
    before, after = ([scores_of(run) for run in each] for each in (baselines, runs))
    papers_before, papers_after = (scores_in_paper(row_in_paper(each[0])) for each in (baselines, runs))
    gains = [_gains(*pair) for pair in zip(before, after, strict=True)]
    parts = [(blocks, runs, after, papers_after)]
    parts.append((DIFFERENCE, baselines + runs, gains, _gains(papers_before, papers_after)))
    if with_baseline:
        parts.insert(0, (BASELINE, baselines, before, papers_before))
    rows = []
    for name, trained, scores, papers in parts:
        row = {**label, "blocks": name, "runs": count_seeds(scores), **_means(scores)}
        row["commit"] = ", ".join(sorted({code for run in trained for code in run.code}))
        if name == DIFFERENCE:
            row |= _cost(runs[0].cfg)
        elif all(run.seconds is not None for run in trained):
            row["training time"] = str(timedelta(seconds=round(np.mean([run.seconds for run in trained]))))
        rows.append(row)
        if papers:
            rows.append({**label, "steps": "", "blocks": name, "runs": PAPERS, **_means([papers])})
    return rows


def labels_of(comparisons: Sequence[Comparison]) -> list[Row]:
    """Model, steps and data of each; where these are the same, also the keys that differ."""
    short = [_label(comparison.runs[0].cfg) for comparison in comparisons]
    labels = []
    for comparison, label in zip(comparisons, short, strict=True):
        alike = [other.setting for other, its in zip(comparisons, short, strict=True) if its == label]
        pairs = comparison.setting.items()
        keys = [f"{key} {value}" for key, value in pairs if any(other[key] != value for other in alike)]
        labels.append({**label, "model": ", ".join([label["model"], *keys])})
    return labels


def _label(cfg: CfgNode) -> Row:
    steps = f"{cfg.SOLVER.MAX_ITER} x {cfg.SOLVER.IMS_PER_BATCH} images"
    return {"model": model_of(cfg), "steps": steps, "tested on": cfg.DATASETS.TEST[0]}


def _gains(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {key: after[key] - before[key] for key in after}


def _means(seeds: Sequence[dict[str, float]]) -> Row:
    """The mean and, of several seeds, the spread of each metric."""
    row: Row = {}
    for key in seeds[0]:
        values = [seed[key] for seed in seeds]
        row[SCORES[key]] = round(float(np.mean(values)), 4)
        if len(values) > 1:
            row[f"{SCORES[key]} spread"] = round(float(np.std(values, ddof=1)), 4)
    return row


def count_seeds(runs: Sequence[object]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def _cost(cfg: CfgNode) -> Row:
    """What the blocks add for an image of the largest size that is tested; nothing for unknown models."""
    regions = cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
    try:
        old, new = extra_cost(cfg, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, *regions)
    except UserError:
        return {}
    macs, parameters = new.multiply_adds - old.multiply_adds, new.parameters - old.parameters
    return {
        "multiply-adds": f"{macs / 1e9:+#.3g} G ({macs / old.multiply_adds:+.1%})",
        "parameters": f"{parameters / 1e6:+#.3g} M ({parameters / old.parameters:+.1%})",
    }


def format_table(rows: Sequence[Row], kind: str) -> str:
    """The table in one of FORMATS; in CSV a spread has a column of its own."""
    columns = [column for column in COLUMNS if any(row.get(column, "") != "" for row in rows)]
    if kind != "csv":
        cells = [[_cell(row, column) for column in columns] for row in rows]
        return tabulate(cells, columns, FORMATS[kind], disable_numparse=True) + "\n"
    columns = [name for column in columns for name in (column, f"{column} spread")]
    columns = [name for name in columns if any(name in row for row in rows)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(
        [columns, *([row.get(c) for c in columns] for row in rows)]
    )
    return file.getvalue()


def _cell(row: Row, column: str) -> str:
    value, spread = row.get(column, ""), row.get(f"{column} spread")
    if isinstance(value, str):
        return value
    sign = "+" if row["blocks"] == DIFFERENCE else ""
    digits = 2 if sign and row["runs"] != PAPERS else 1  # the paper has one
    return f"{value:{sign}.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")
