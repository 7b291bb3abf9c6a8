"""The table: a row for each baseline, variant and difference, and the paper's own below; and curves."""

import csv
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache

import numpy as np
from detectron2.config import CfgNode
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of
from nl_detectron.engine import Run
from nl_detectron.errors import UserError
from nl_detectron.inspect import extra_cost
from nl_detectron_cli.results import FORMATS

from .pairing import BASELINE, SCORES, Group, blocks_of, label_of, scores_of, setting_of

# All columns, in their order; `_rows` fills them. A column without values is left out. CSV alone has columns
# for the spread, the sample standard deviation over the seeds; elsewhere it stands beside the mean.
SPREAD = " spread"
COLUMNS = ["model", "steps", "tested on", "blocks", "runs"]
COLUMNS += [name + part for name in SCORES.values() for part in ("", SPREAD)]
COLUMNS += ["multiply-adds", "parameters", "training time", "commit"]
DIFFERENCE, PAPERS = "difference", "the paper's"  # in the place of the blocks, and of the seeds
Row = dict[str, str | float]  # by column

# Tables 5 and 6 of "Non-local Neural Networks", on COCO val2017. None of these figures is ours.
# By the shipped config of the row; a 3x config is another schedule of the same row.
TABLE_5 = {  # box AP, AP50, AP75, mask AP, AP50, AP75: the first six of SCORES
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": (38.0, 59.6, 41.0, 34.6, 56.4, 36.5),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml": (39.0, 61.1, 41.9, 35.5, 58.0, 37.4),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml": (39.5, 61.4, 42.9, 36.0, 58.1, 38.3),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_nl_1x.yaml": (40.8, 63.1, 44.5, 37.1, 59.9, 39.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_1x.yaml": (44.1, 66.4, 48.4, 39.7, 63.2, 42.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_1x.yaml": (45.0, 67.8, 48.9, 40.3, 64.4, 42.8),
}
TABLE_6 = {  # keypoint AP, AP50, AP75: the next three
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml": (65.1, 86.8, 70.4),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_1x.yaml": (66.0, 87.1, 71.7),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml": (66.5, 87.3, 72.8),
}
PAPER = {config: dict(zip([*SCORES][:6], row, strict=True)) for config, row in TABLE_5.items()}
PAPER |= {config: dict(zip([*SCORES][6:9], row, strict=True)) for config, row in TABLE_6.items()}
_COCO_2017 = [118287, 5000]  # images of train2017 and val2017; a subset may have their names


def result_table(groups: list[Group], configs: Sequence[str] = ()) -> list[Row]:
    """The rows of what was trained, the paper's in its order; and the paper's of `configs` that were not."""
    groups = sorted(groups, key=lambda group: [*PAPER, None].index(row_in_paper(group[BASELINE][0])))
    rows: list[Row] = []
    for group, label in zip(groups, labels_of(groups), strict=True):
        by_seed, shown = {run.cfg.SEED: run for run in group[BASELINE]}, []
        for blocks, runs in [*group.items()][1:]:
            baselines = [by_seed[run.cfg.SEED] for run in runs]
            new = _rows({BASELINE: baselines, blocks: runs})
            rows += [label | row for row in new if row["blocks"] != BASELINE or baselines != shown]
            shown = baselines
    trained = {row_in_paper(runs[0]) for group in groups for runs in group.values()}
    for config in configs:
        if config not in trained:
            cfg = model_zoo.get_config(config)
            row = {**label_of(cfg), "steps": "", "blocks": blocks_of(cfg), "runs": "not trained"}
            rows += [row, {**row, "runs": PAPERS, **_means(PAPER[config])}]
    return rows


def single_rows(runs: list[Run]) -> list[Row]:
    """A row for each run that stands alone, without a difference."""
    rows = []
    for run in runs:
        row = {**label_of(run.cfg), "blocks": blocks_of(run.cfg), "runs": f"SEED {run.cfg.SEED}, alone"}
        rows.append(row | _means(scores_of(run)) | _origin([run]))
    return rows


def _origin(runs: list[Run]) -> Row:
    """The code of some runs, and their mean time if it is known."""
    row: Row = {"commit": ", ".join(sorted({code for run in runs for code in run.code}))}
    if all(run.seconds is not None for run in runs):
        row["training time"] = str(timedelta(seconds=round(np.mean([run.seconds for run in runs]))))
    return row


def _rows(pair: Group) -> list[Row]:
    """Baseline, variant and difference; below each, what the paper has for it."""
    ours = [scores_of(*runs) for runs in pair.values()]
    papers = [PAPER.get(row_in_paper(runs[0]), {}) for runs in pair.values()]
    for figures in (ours, papers):
        before, after = figures
        figures.append({key: after[key] - before[key] for key in after})
    rows, parts = [], pair | {DIFFERENCE: [run for runs in pair.values() for run in runs]}
    for (name, runs), scores, paper in zip(parts.items(), ours, papers, strict=True):
        row = {"blocks": name, "runs": count_seeds(pair[BASELINE]), **_means(scores), **_origin(runs)}
        if name == DIFFERENCE:
            row.pop("training time", None)
            with suppress(UserError):  # a model that cannot be counted
                row |= _cost(runs[-1].cfg)
        rows.append(row)
        if paper:
            rows.append({"steps": "", "blocks": name, "runs": PAPERS, **_means(paper)})
    return rows


def _means(scores: dict[str, np.ndarray | float]) -> Row:
    """The mean and, of several seeds, the spread of each metric."""
    row = {SCORES[key]: round(float(np.mean(values)), 4) for key, values in scores.items()}
    several = [key for key in scores if np.size(scores[key]) > 1]
    return row | {SCORES[key] + SPREAD: round(float(np.std(scores[key], ddof=1)), 4) for key in several}


def _cost(cfg: CfgNode) -> Row:
    """What the blocks add for an image of the largest size that is tested; a UserError for unknown models."""
    if not cfg.INPUT.MIN_SIZE_TEST:  # images keep their sizes
        return {}
    regions = cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
    old, new = extra_cost(cfg, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, *regions)
    macs, parameters = new.multiply_adds - old.multiply_adds, new.parameters - old.parameters
    return {
        "multiply-adds": f"{macs / 1e9:+#.3g} G ({macs / old.multiply_adds:+.1%})",
        "parameters": f"{parameters / 1e6:+#.3g} M ({parameters / old.parameters:+.1%})",
    }


def row_in_paper(run: Run) -> str | None:
    """The shipped config of the row that a run is: its model, its blocks, and all of COCO 2017."""
    images = [run.images.get(name) for name in (*run.cfg.DATASETS.TRAIN, *run.cfg.DATASETS.TEST)]
    return _rows_in_paper().get(_row_key(run.cfg)) if images == _COCO_2017 else None


@cache
def _rows_in_paper() -> dict[str, str]:
    return {_row_key(model_zoo.get_config(config)): config for config in PAPER}


def _row_key(cfg: CfgNode) -> str:
    """The blocks and the keys that make a row: not the schedule, the device, the file of weights, and the
    names, which trainings fill in."""
    base = baseline_of(cfg)
    base.MODEL.NON_LOCAL = base.MODEL.WEIGHTS = base.MODEL.DEVICE = None
    base.MODEL.CLASS_NAMES = base.MODEL.KEYPOINT_NAMES = None
    return json.dumps([blocks_of(cfg), base.MODEL, base.DATASETS, base.INPUT])


def labels_of(groups: list[Group]) -> list[dict[str, str]]:
    """Model, steps and data of each; where these are the same, also the keys that differ."""
    first = [next(iter(group.values()))[0] for group in groups]
    pairs = [(label_of(run.cfg), setting_of(run)) for run in first]
    labels = []
    for label, setting in pairs:
        alike = [other for its, other in pairs if its == label]
        keys = [f"{key} {value}" for key, value in setting.items() if any(its[key] != value for its in alike)]
        labels.append({**label, "model": ", ".join([label["model"], *keys])})
    return labels


def count_seeds(runs: list[Run]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def format_table(rows: list[Row], kind: str) -> str:
    """The table in one of FORMATS."""
    columns = [column for column in COLUMNS if any(row.get(column, "") != "" for row in rows)]
    if kind == "csv":
        file = io.StringIO()
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue()
    columns = [column for column in columns if not column.endswith(SPREAD)]
    cells = [[_cell(row, column) for column in columns] for row in rows]
    return tabulate(cells, columns, FORMATS[kind], disable_numparse=True) + "\n"


def _cell(row: Row, column: str) -> str:
    value, spread = row.get(column, ""), row.get(column + SPREAD)
    if isinstance(value, str):
        return value
    sign = "+" if row["blocks"] == DIFFERENCE else ""
    digits = 2 if sign and row["runs"] != PAPERS else 1  # the paper has one
    return f"{value:{sign}.{digits}f}" + ("" if spread is None else f" ± {spread:.{digits}f}")


def plot_curves(groups: list[Group]) -> Figure:
    """Plots of loss and AP, a row for each setting: a thin line for each seed, and their mean."""
    runs = [run for group in groups for runs in group.values() for run in runs]
    known = {key for run in runs for metrics in run.history.values() for key in metrics}
    wanted = ["total_loss", "validation/total_loss", *(key for key in SCORES if key.endswith("/AP"))]
    keys = [key for key in wanted if key in known]
    figure = Figure(figsize=(5 * len(keys), 3.6 * len(groups)), layout="constrained")
    rows = figure.subplots(len(groups), len(keys), squeeze=False)
    for row, group, title in zip(rows, groups, labels_of(groups), strict=True):
        for ax, key in zip(row, keys, strict=True):
            for number, (blocks, runs) in enumerate(group.items()):
                _plot(ax, key, runs, f"{blocks}, {count_seeds(runs)}", f"C{number}")
            name = SCORES.get(key, key.replace("_", " ").replace("/", ": "))
            ax.set(xlabel="iteration", ylabel=name, xlim=(0, None), ylim=(0, None))
        row[0].set_title(", ".join(title.values()), loc="left")
        row[-1].legend()
    return figure


def _plot(ax: Axes, key: str, runs: list[Run], label: str, color: str) -> None:
    """The mean of the runs at the iterations that all of them have, and each run if there are several."""
    style = {"color": color, "marker": "." if key in SCORES else ""}
    curves = [{k: values[key] for k, values in sorted(run.history.items()) if key in values} for run in runs]
    for curve in curves if len(curves) > 1 else ():
        ax.plot([*curve], [*curve.values()], linewidth=0.6, alpha=0.6, **style)
    steps = sorted(set.intersection(*map(set, curves)))
    ax.plot(steps, [np.mean([curve[step] for curve in curves]) for step in steps], label=label, **style)
