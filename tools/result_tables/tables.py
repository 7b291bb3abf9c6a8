"""The table: a row for each baseline, variant and difference, and the paper's own figures below its rows; as
text, and within a Markdown file, between comments that name its place.
"""

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from tabulate import tabulate

from nl_detectron import model_zoo
from nl_detectron.engine import Run
from nl_detectron.errors import UserError
from nl_detectron.inspect import extra_cost

from .pairing import SCORES, Comparison, blocks_of, count_seeds, model_of, scores_of, setting_of
from .paper import PAPERS, TABLE_5, TABLE_6, row_in_paper, scores_in_paper

FORMATS = {"text": "simple", "markdown": "github", "csv": ""}  # and what tabulate calls them
COLUMNS = ("model", "steps", "tested on", "blocks", "runs", *SCORES.values())
COLUMNS += ("multiply-adds", "parameters", "training time", "commit")
DIFFERENCE = "difference"
# What is evaluated for a place, the most special first, and the rows of the paper that belong there.
PLACES = {"keypoint": ("keypoints/AP", [*TABLE_6]), "mask": ("segm/AP", [*TABLE_5]), "box": ("bbox/AP", [])}
_BEGIN, _END = "<!-- results:", "<!-- /results -->"
_PLACE = re.compile(rf"({_BEGIN}(\w+) -->(\r?\n))(?:(?!{_BEGIN}).)*?({_END})", re.DOTALL)
# By column. Beside "box AP" there may be "box AP spread", its sample standard deviation over the seeds.
Row = dict[str, str | float]


def result_table(comparisons: Sequence[Comparison], configs: Sequence[str] = ()) -> list[Row]:
    """The rows of what was trained.

    Args:
        configs: shipped configs of the paper's rows that are shown trained or not, in this order.
    """
    parts: list[tuple[int, list[Row]]] = []  # with their places among the configs
    trained: set[str | None] = set()
    shown: list[Run] = []  # several variants share the rows of their baselines
    for (baselines, runs), label in zip(comparisons, labels_of(comparisons), strict=True):
        config = row_in_paper(baselines[0])
        trained |= {config, row_in_paper(runs[0])}
        rows = [] if baselines == shown else _trained(baselines, label)
        rows += _trained(runs, label) + _differences(baselines, runs, label)
        parts.append((configs.index(config) if config in configs else len(configs), rows))
        shown = baselines
    for place, config in enumerate(configs):
        if config not in trained:
            paper = _paper(config)
            empty = {column: paper[column] for column in ("model", "tested on", "blocks")}
            parts.append((place, [{**empty, "runs": "not trained"}, paper]))
    return [row for _, rows in sorted(parts, key=lambda part: part[0]) for row in rows]


def labels_of(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """Model, steps and data of each; where these are the same, also the keys that differ."""
    settings = [setting_of(comparison.runs[0]) for comparison in comparisons]
    short = [_label(comparison.runs[0].cfg) for comparison in comparisons]
    labels = []
    for setting, label in zip(settings, short, strict=True):
        rivals = [other for other, its in zip(settings, short, strict=True) if its == label]
        keys = [f"{key} {value}" for key, value in setting.items() if any(o[key] != value for o in rivals)]
        labels.append({**label, "model": ", ".join([label["model"], *keys])})
    return labels


def _label(cfg: CfgNode) -> dict[str, str]:
    steps = f"{cfg.SOLVER.MAX_ITER} x {cfg.SOLVER.IMS_PER_BATCH} images"
    return {"model": model_of(cfg), "steps": steps, "tested on": cfg.DATASETS.TEST[0]}


def _trained(runs: list[Run], label: Row) -> list[Row]:
    row = {**label, "blocks": blocks_of(runs[0].cfg), "runs": count_seeds(runs), "commit": _commit(runs)}
    row |= _means([scores_of(run) for run in runs])
    if all(run.seconds is not None for run in runs):
        row["training time"] = str(timedelta(seconds=round(np.mean([run.seconds for run in runs]))))
    config = row_in_paper(runs[0])
    return [row, {**_paper(config), "model": label["model"]}] if config else [row]


def _differences(baselines: list[Run], runs: list[Run], label: Row) -> list[Row]:
    label = {**label, "blocks": DIFFERENCE}
    row = {**label, "runs": count_seeds(runs), **_cost(runs[0].cfg), "commit": _commit(baselines + runs)}
    row |= _means(map(_gains, map(scores_of, baselines), map(scores_of, runs)))
    before, after = row_in_paper(baselines[0]), row_in_paper(runs[0])
    if not (before and after):
        return [row]
    gains = _means([_gains(scores_in_paper(before), scores_in_paper(after))])
    return [row, {**label, "steps": "", "runs": PAPERS, **gains}]


def _paper(config: str) -> Row:
    cfg = model_zoo.get_config(config)
    label = {"model": model_of(cfg), "tested on": cfg.DATASETS.TEST[0], "blocks": blocks_of(cfg)}
    return {**label, "runs": PAPERS, **_means([scores_in_paper(config)])}


def _gains(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {key: after[key] - before[key] for key in after}


def _means(scores: Iterable[dict[str, float]]) -> Row:
    """Over the seeds."""
    seeds, row = [*scores], {}
    for key in seeds[0]:
        values = [seed[key] for seed in seeds]
        row[SCORES[key]] = float(np.mean(values))
        if len(values) > 1:
            row[f"{SCORES[key]} spread"] = float(np.std(values, ddof=1))
    return row


def _commit(runs: Sequence[Run]) -> str:
    code = sorted({code for run in runs for code in run.code})
    return code[0] if len(code) == 1 else f"mixed: {', '.join(code)}"


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
    """The table in one of FORMATS, without empty columns; in CSV a spread has a column of its own."""
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    if kind != "csv":
        cells = [[_cell(row, column) for column in columns] for row in rows]
        return tabulate(cells, columns, FORMATS[kind], disable_numparse=True) + "\n"
    fields = [field for column in columns for field in (column, f"{column} spread")]
    fields = [field for field in fields if any(field in row for row in rows)]
    file = io.StringIO()
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: round(x, 4) if isinstance(x, float) else x for key, x in row.items()})
    return file.getvalue()


def _cell(row: Row, column: str) -> str:
    value, spread = row.get(column, ""), row.get(f"{column} spread")
    if isinstance(value, str):
        return value
    if math.isnan(value):  # nothing was detected
        return "nan"
    sign = "+" if row["blocks"] == DIFFERENCE else ""
    digits = 2 if sign and row["runs"] != PAPERS else 1  # the paper has one
    return f"{value:{sign}.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def filled_in(path: Path, comparisons: Sequence[Comparison]) -> bytes:
    """A Markdown file with its tables: what was trained, and the paper's rows, trained or not.

    Raises:
        UserError: if the file is not UTF-8, lacks a place, or has one with an unknown name or no end; and for
            an AP of nan, as of a model that detects nothing.
    """
    try:
        text = path.read_bytes().decode()  # with its own line ends
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: byte {error.start}. Save it as UTF-8.") from None
    found = [match[2] for match in _PLACE.finditer(text)]
    if not found or len(found) != text.count(_BEGIN) or not set(found) <= set(PLACES):
        places = ", ".join(f"{_BEGIN}{place} -->" for place in PLACES)
        raise UserError(f"{path} needs places for tables: a line {places} each, and a line {_END} after it.")
    tables: dict[str, list[Comparison]] = {place: [] for place in found}
    for comparison in comparisons:
        for run in comparison.baselines + comparison.runs:
            if any(map(math.isnan, scores_of(run).values())):
                raise UserError(f"{run.folder} has an AP of nan, which is no result. Train for longer.")
        place = next(place for place, (score, _) in PLACES.items() if score in scores_of(comparison.runs[0]))
        if place not in tables:
            raise UserError(f"{path} has no place {_BEGIN}{place} --> for {comparison.runs[0].folder}.")
        tables[place].append(comparison)

    def table(match: re.Match[str]) -> str:
        begin, place, line_end, end = match.groups()
        rows = result_table(tables[place], PLACES[place][1])
        return begin + format_table(rows, "markdown").replace("\n", line_end) + end

    return _PLACE.sub(table, text).encode()
