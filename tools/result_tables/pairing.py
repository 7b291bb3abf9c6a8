"""Finished trainings, each beside its baseline: the same setting and SEED without blocks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from nl_detectron.config import BASELINES, KEYPOINT_HEAD, STAGES, baseline_of, get_cfg
from nl_detectron.engine import Run, flat_pairs, read_run
from nl_detectron.errors import UserError

# The tasks that are shown and their names, in the order of the columns
TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}
TASKS |= {"bbox_TTA": "box TTA", "segm_TTA": "mask TTA"}
SCORES = {f"{task}/{ap}": f"{name} {ap}" for task, name in TASKS.items() for ap in ("AP", "AP50", "AP75")}
BASELINE = "baseline"


class Comparison(NamedTuple):
    """The runs of one variant and, in the same order, the baselines of their SEEDs."""

    setting: dict[str, str]
    blocks: str
    baselines: list[Run]
    runs: list[Run]


def read_finished(folder: Path) -> Run:
    """Read an output folder of train_net.py.

    Raises:
        UserError: as `read_run`; or if the training is not finished, or was tested on several data sets.
    """
    run = read_run(folder)
    if (sets := len(run.cfg.DATASETS.TEST)) != 1:
        raise UserError(f"{folder} was tested on {sets} data sets. Only runs with one are compared.")
    if not run.finished or "bbox/AP" not in scores_of(run):
        last, end = max(run.history, default=0), run.cfg.SOLVER.MAX_ITER
        state = f"its last metrics are of iteration {last}, and iteration {end} is not evaluated"
        raise UserError(f"{folder} is not finished: {state}. Continue it with train_net.py --resume.")
    return run


def scores_of(run: Run) -> dict[str, float]:
    """The metrics of SCORES in per cent, at MAX_ITER, whether or not they are the best."""
    last = run.history.get(run.cfg.SOLVER.MAX_ITER, {})
    return {key: last[key] for key in SCORES if key in last}


def pair_runs(runs: Sequence[Run]) -> list[Comparison]:
    """Put each run beside its baseline. Comparisons are sorted by their settings and blocks.

    Raises:
        UserError: for a run without a baseline, or the reverse, naming the nearest and what differs; and for
            the same training twice.
    """
    found: dict[tuple[str, str, int], Run] = {}  # by setting, blocks and SEED
    for run in sorted(runs, key=lambda run: run.cfg.SEED):
        key = json.dumps(setting_of(run)), blocks_of(run.cfg), run.cfg.SEED
        if key in found:
            twice = f"{found[key].folder} and {run.folder}"
            raise UserError(f"{twice} are both {key[1]} with SEED {key[2]}. Leave one out.")
        found[key] = run
    comparisons: dict[tuple[str, str], Comparison] = {}  # by setting and blocks
    for (setting, blocks, seed), run in found.items():
        beside = [its for where, its, number in found if (where, number) == (setting, seed)]
        if BASELINE not in beside or len(beside) == 1:
            raise UserError(_no_partner(run, runs))
        if blocks != BASELINE:
            pairs = comparisons.setdefault((setting, blocks), Comparison(setting_of(run), blocks, [], []))
            pairs.baselines.append(found[setting, BASELINE, seed])
            pairs.runs.append(run)
    return [comparisons[key] for key in sorted(comparisons)]


def _no_partner(run: Run, runs: Sequence[Run]) -> str:
    is_baseline = blocks_of(run.cfg) == BASELINE
    wanted = "run with non-local blocks" if is_baseline else "baseline"
    message = f"{run.folder} has no {wanted} of the same setting and SEED beside it."
    others = [other for other in runs if (blocks_of(other.cfg) == BASELINE) != is_baseline]
    if not others:
        return f"{message} Train one, or leave this out."
    nearest = min(others, key=lambda other: len(_differences(run, other)))
    return f"{message} The nearest, {nearest.folder}, has {', '.join(_differences(run, nearest))}."


def _differences(run: Run, other: Run) -> list[str]:
    ours, theirs = ({"SEED": str(each.cfg.SEED)} | setting_of(each) for each in (run, other))
    return [f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]


def setting_of(run: Run) -> dict[str, str]:
    """What a run must have in common with its baseline."""
    others = {"processes": run.processes, "images": run.images, "evaluation": [*scores_of(run)]}
    return config_setting(run.cfg) | {name: json.dumps(value) for name, value in others.items()}


def config_setting(cfg: CfgNode) -> dict[str, str]:
    """What a config has in common with its baseline's: all but non-local keys, OUTPUT_DIR and SEED."""
    own = ("MODEL.NON_LOCAL.", "OUTPUT_DIR", "SEED")
    keys = flat_pairs(baseline_of(cfg))
    return {key: json.dumps(value) for key, value in keys if not key.startswith(own)}  # a tuple as a list


def model_of(cfg: CfgNode) -> str:
    """As "Mask R-CNN R50-FPN"; with a user's own backbone or heads, the names of these."""
    model, backbone, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME
    if "resnet" in backbone:
        letter = "X" if cfg.MODEL.RESNETS.NUM_GROUPS > 1 else "R"
        backbone = f"{letter}{cfg.MODEL.RESNETS.DEPTH}{'-FPN' if 'fpn' in backbone else ''}"
    if model != "GeneralizedRCNN":
        return f"{model} {backbone}"
    task = "Keypoint" if cfg.MODEL.KEYPOINT_ON else "Mask" if cfg.MODEL.MASK_ON else "Faster"
    return f"{task} R-CNN {backbone}{'' if heads == 'StandardROIHeads' else f' {heads}'}"


def blocks_of(cfg: CfgNode) -> str:
    """All that a config says of its blocks, as "+1 NL in res4"; or BASELINE."""
    node, default = cfg.MODEL.NON_LOCAL, get_cfg().MODEL.NON_LOCAL
    names, stages = [], {stage.upper(): stage for stage in STAGES}
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        convolutions = len(cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS)
        names.append(f"+{convolutions // node.KEYPOINT_HEAD_EVERY} NL in head")
    if cfg.MODEL.BACKBONE.NAME in BASELINES:
        for key, stage in stages.items():
            if node[key]:
                name = f"+{len(node[key])} NL in {stage}"
                names.append(name if node[key] == [-1] else f"{name} {node[key]}")
    changed = [f"{key} {node[key]}" for key in node if key not in stages and node[key] != default[key]]
    return ", ".join(names + changed) if names else BASELINE
