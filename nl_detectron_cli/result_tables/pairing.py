"""Finished trainings, put beside their baselines: the same setting and SEED without blocks."""

import json
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from nl_detectron.config import BASELINES, KEYPOINT_HEAD, STAGES, baseline_of, get_cfg
from nl_detectron.engine import Run, flat_pairs, read_run
from nl_detectron.errors import UserError
from nl_detectron_cli.arguments import as_typed

TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}  # in the order of the columns
TASKS |= {"bbox_TTA": "box TTA", "segm_TTA": "mask TTA"}
SCORES = {f"{task}/{ap}": f"{name} {ap}" for task, name in TASKS.items() for ap in ("AP", "AP50", "AP75")}
BASELINE = "baseline"
Group = dict[str, list[Run]]  # the runs of one setting by their blocks, BASELINE first; each list by SEED


def read_finished(folder: Path) -> Run:
    """As `read_run`; also a UserError for a training that is unfinished or has several data sets to test."""
    run = read_run(folder)
    if (sets := len(run.cfg.DATASETS.TEST)) != 1:
        raise UserError(f"{folder} was tested on {sets} data sets. Only runs with one are compared.")
    if not run.finished or "bbox/AP" not in scores_of(run):
        last, end = max(run.history, default=0), run.cfg.SOLVER.MAX_ITER
        command = as_typed("train_net.py")
        state = f"its last metrics are of iteration {last}, and iteration {end} is not evaluated"
        raise UserError(f"{folder} is not finished: {state}. Continue it with {command} --resume.")
    return run


def scores_of(*runs: Run) -> dict[str, np.ndarray]:
    """The metrics of SCORES in per cent, of each run at MAX_ITER, whether or not they are the best."""
    last = [run.history.get(run.cfg.SOLVER.MAX_ITER, {}) for run in runs]
    return {key: np.array([metrics[key] for metrics in last]) for key in SCORES if key in last[0]}


def group_runs(runs: list[Run]) -> list[Group]:
    """Put runs, none of them `without_partner`, beside their baselines; a UserError for one twice."""
    groups: dict[str, Group] = {}  # by setting
    for run in sorted(runs, key=lambda run: (blocks_of(run.cfg), run.cfg.SEED)):
        group = groups.setdefault(json.dumps(setting_of(run)), {BASELINE: []})
        seeds = group.setdefault(blocks_of(run.cfg), [])
        if seeds and seeds[-1].cfg.SEED == run.cfg.SEED:
            twice = f"{seeds[-1].folder} and {run.folder} are both {blocks_of(run.cfg)}"
            raise UserError(f"{twice} with SEED {run.cfg.SEED}. Leave one out.")
        seeds.append(run)
    return [groups[setting] for setting in sorted(groups)]


def without_partner(runs: list[Run]) -> dict[Path, str]:
    """A note for each run without a baseline, or for a baseline without blocks beside it, by its folder."""
    partners = {(json.dumps(setting_of(run)), run.cfg.SEED, blocks_of(run.cfg) == BASELINE) for run in runs}
    return {
        run.folder: _no_partner(run, runs)
        for run in runs
        if (json.dumps(setting_of(run)), run.cfg.SEED, blocks_of(run.cfg) != BASELINE) not in partners
    }


def _no_partner(run: Run, runs: list[Run]) -> str:
    is_baseline = blocks_of(run.cfg) == BASELINE
    wanted = "run with non-local blocks" if is_baseline else "baseline"
    message = f"{run.folder} has no {wanted} of the same setting and SEED beside it."
    ours, differences = {"SEED": run.cfg.SEED, **setting_of(run)}, {}
    for other in runs:
        if (blocks_of(other.cfg) == BASELINE) != is_baseline:
            its = {"SEED": other.cfg.SEED, **setting_of(other)}
            texts = [f"{key} {its[key]} instead of {our}" for key, our in ours.items() if its[key] != our]
            differences[other.folder] = texts
    if not differences:
        return f"{message} Train one, or leave this out."
    nearest = min(differences, key=lambda folder: len(differences[folder]))
    return f"{message} The nearest, {nearest}, has {', '.join(differences[nearest])}."


def setting_of(run: Run) -> dict[str, str]:
    """What a run must have in common with its baseline: all but blocks, names, OUTPUT_DIR and SEED."""
    values = dict(flat_pairs(baseline_of(run.cfg)))
    values |= {"processes": run.processes, "images": run.images, "evaluation": [*scores_of(run)]}
    own = ("MODEL.NON_LOCAL.", "OUTPUT_DIR", "SEED", "MODEL.CLASS_NAMES", "MODEL.KEYPOINT_NAMES")
    return {key: json.dumps(value) for key, value in values.items() if not key.startswith(own)}


def label_of(cfg: CfgNode) -> dict[str, str]:
    """The model, as "Mask R-CNN R50-FPN" (a user's own backbone or heads by name), its steps and test set."""
    model, backbone, heads = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME
    if "resnet" in backbone:
        letter = "X" if cfg.MODEL.RESNETS.NUM_GROUPS > 1 else "R"
        backbone = f"{letter}{cfg.MODEL.RESNETS.DEPTH}{'-FPN' if 'fpn' in backbone else ''}"
    if model == "GeneralizedRCNN":
        task = "Keypoint" if cfg.MODEL.KEYPOINT_ON else "Mask" if cfg.MODEL.MASK_ON else "Faster"
        model, backbone = f"{task} R-CNN", backbone if heads == "StandardROIHeads" else f"{backbone} {heads}"
    steps = f"{cfg.SOLVER.MAX_ITER} x {cfg.SOLVER.IMS_PER_BATCH} images"
    return {"model": f"{model} {backbone}", "steps": steps, "tested on": cfg.DATASETS.TEST[0]}


def blocks_of(cfg: CfgNode) -> str:
    """All that a config says of its blocks, as "+1 NL in res4"; or BASELINE."""
    node, default, names = cfg.MODEL.NON_LOCAL, get_cfg().MODEL.NON_LOCAL, []
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        names.append(f"+{len(cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS) // node.KEYPOINT_HEAD_EVERY} NL in head")
    if cfg.MODEL.BACKBONE.NAME in BASELINES:
        for stage in STAGES:
            if places := node[stage.upper()]:
                names.append(f"+{len(places)} NL in {stage}" + ("" if places == [-1] else f" {places}"))
    changed = [key for key in node if key.lower() not in STAGES and node[key] != default[key]]
    return ", ".join([*names, *(f"{key} {node[key]}" for key in changed)]) if names else BASELINE
