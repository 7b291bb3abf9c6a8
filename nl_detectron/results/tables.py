"""The table of the results: a row for each baseline, variant and difference, and below it the paper's own."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from tabulate import tabulate

from nl_detectron import model_zoo
from nl_detectron.analysis import extra_cost
from nl_detectron.errors import UserError

from .names import blocks_of, count_seeds, model_of
from .pairing import Comparison, run_setting
from .paper import row_of, scores_of
from .runs import SCORES, Run

FORMATS = {"text": "simple", "markdown": "github", "csv": None}  # and what tabulate calls them
COLUMNS = [
    *("model", "steps", "tested on", "blocks", "runs"),
    *SCORES.values(),
    *("multiply-adds", "parameters", "training time", "commit"),
]


class Score(NamedTuple):
    """The mean of one or several seeds, and the sample standard deviation of several."""

    mean: float
    spread: float | None = None
    form: str = ".1f"

    def __str__(self) -> str:
        if math.isnan(self.mean):  # nothing was detected
            return "nan"
        spread = "" if self.spread is None else f" ± {self.spread:{self.form.removeprefix('+')}}"
        return f"{self.mean:{self.form}}{spread}"


Row = dict[str, str | Score]  # by column


def result_table(comparisons: Sequence[Comparison], papers: Sequence[str] = ()) -> list[Row]:
    """The rows of what was trained.

    Args:
        papers: shipped configs of rows of the paper that are to be there, trained or not.
    """
    trained = {row_of(run) for comparison in comparisons for pair in comparison.pairs for run in pair}
    parts = [(k, _not_trained(config)) for k, config in enumerate(papers) if config not in trained]
    shown: list[Run] = []
    for comparison, label in zip(comparisons, labels_of(comparisons), strict=True):
        config = row_of(comparison.baselines[0])
        place = papers.index(config) if config in papers else len(papers)
        parts.append((place, list(_rows(comparison, label, comparison.baselines != shown))))
        shown = comparison.baselines
    return [row for _, rows in sorted(parts, key=lambda part: part[0]) for row in rows]


def labels_of(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Model, steps and data of each, by column; where these are the same, what tells the settings apart."""
    settings = [run_setting(comparison.runs[0]) for comparison in comparisons]
    labels = [_label(comparison.runs[0].cfg) for comparison in comparisons]
    full = []
    for setting, label in zip(settings, labels, strict=True):
        rivals = [other for other, its in zip(settings, labels, strict=True) if its == label]
        apart = [f"{key} {value}" for key, value in setting.items() if any(o[key] != value for o in rivals)]
        full.append(label | {"model": ", ".join([label["model"], *apart])})
    return full


def format_table(rows: Sequence[Row], kind: str = "text") -> str:
    """The table in one of FORMATS, without the columns that nothing is in; in CSV a spread has its own."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    if kind != "csv":
        cells = [[str(row.get(column, "")) for column in columns] for row in rows]
        return tabulate(cells, columns, FORMATS[kind], disable_numparse=True) + "\n"
    flat = [dict(_numbers(row)) for row in rows]
    names = [name for column in columns for name in (column, f"{column} spread")]
    file = io.StringIO()
    writer = csv.DictWriter(file, [n for n in names if any(n in row for row in flat)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def _numbers(row: Row) -> Iterator[tuple[str, str | float]]:
    for column, cell in row.items():
        if not isinstance(cell, Score):
            yield column, cell
            continue
        yield column, round(cell.mean, 4)
        if cell.spread is not None:
            yield f"{column} spread", round(cell.spread, 4)


def _rows(comparison: Comparison, label: dict[str, str], with_baseline: bool) -> Iterator[Row]:
    baselines, runs = comparison.baselines, comparison.runs
    if with_baseline:
        yield from _trained(baselines, label)
    yield from _trained(runs, label)
    differences = {
        column: mean_score(
            [run.scores[key] - baseline.scores[key] for baseline, run in comparison.pairs], "+.2f"
        )
        for key, column in SCORES.items()
        if key in runs[0].scores
    }
    label = label | {"blocks": "difference"}
    commit = {"commit": _commit([*baselines, *runs])}
    yield {**label, "runs": count_seeds(runs), **differences, **_cost(runs[0].cfg), **commit}
    papers = [row_of(baselines[0]), row_of(runs[0])]
    if None not in papers:
        before, after = map(scores_of, papers)
        scores = {SCORES[key]: Score(after[key] - before[key], form="+.1f") for key in after}
        yield {**label, "steps": "", "runs": "the paper's", **scores}


def _trained(runs: list[Run], label: dict[str, str]) -> Iterator[Row]:
    scores = {SCORES[key]: mean_score([run.scores[key] for run in runs]) for key in runs[0].scores}
    label = label | {"blocks": blocks_of(runs[0].cfg), "runs": count_seeds(runs)}
    row = {**label, **scores, "commit": _commit(runs)}
    if all(run.seconds is not None for run in runs):
        row["training time"] = str(timedelta(seconds=round(np.mean([run.seconds for run in runs]))))
    yield row
    if config := row_of(runs[0]):
        yield _paper(config) | {"model": label["model"]}


def _paper(config: str) -> Row:
    cfg = model_zoo.get_config(config)
    scores = {SCORES[key]: Score(value) for key, value in scores_of(config).items()}
    label = {"model": model_of(cfg), "tested on": cfg.DATASETS.TEST[0], "blocks": blocks_of(cfg)}
    return {**label, "runs": "the paper's", **scores}


def _not_trained(config: str) -> list[Row]:
    paper = _paper(config)
    label = {column: paper[column] for column in ("model", "tested on", "blocks")}
    return [label | {"runs": "not trained"}, paper]


def mean_score(values: list[float], form: str = ".1f") -> Score:
    """Of the values of one or several seeds."""
    return Score(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, form)


def _commit(runs: list[Run]) -> str:
    code = sorted(frozenset.union(*(run.code for run in runs)))
    return f"mixed: {', '.join(code)}" if len(code) > 1 else code[0]


def _cost(cfg: CfgNode) -> dict[str, str]:
    """What the blocks add, for an image of the largest size that is tested; nothing for an unknown model."""
    sizes = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    regions = (cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE)
    try:
        before, after = extra_cost(cfg, *sizes, *regions)
    except UserError:
        return {}

    def extra(field: str, unit: float) -> str:
        old, new = getattr(before, field), getattr(after, field)
        return f"{(new - old) / unit:+#.3g} {'G' if unit == 1e9 else 'M'} ({100 * (new / old - 1):+.1f} %)"

    return {"multiply-adds": extra("multiply_adds", 1e9), "parameters": extra("parameters", 1e6)}


def _label(cfg: CfgNode) -> dict[str, str]:
    steps = f"{cfg.SOLVER.MAX_ITER} x {cfg.SOLVER.IMS_PER_BATCH} images"
    return {"model": model_of(cfg), "steps": steps, "tested on": cfg.DATASETS.TEST[0]}
