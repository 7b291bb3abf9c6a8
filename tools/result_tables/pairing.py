"""Finished trainings, each beside its baseline: the same setting and SEED without blocks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode

from nl_detectron.config import BASELINES, KEYPOINT_HEAD, STAGES, baseline_of, get_cfg
from nl_detectron.engine import Run, flat_pairs, read_run
from nl_detectron.errors import UserError

TASKS = {
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "bbox_TTA": "box TTA",
    "segm_TTA": "mask TTA",
}
SCORES = {f"{task}/{ap}": f"{name} {ap}" for task, name in TASKS.items() for ap in ("AP", "AP50", "AP75")}
BASELINE = "baseline"
# Residual blocks in res2 to res5, by RESNETS.DEPTH
_STAGE_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Comparison(NamedTuple):
    """The runs of one variant and, in the same order, the baselines of their SEEDs."""

    baselines: list[Run]
    runs: list[Run]


def read_finished(folder: Path) -> Run:
    """Read an output folder of train_net.py.

    Raises:
        UserError: as `read_run`; or if the training is not finished, or was tested on several data sets.
    """
    run = read_run(folder)
    if len(tests := run.cfg.DATASETS.TEST) != 1:
        raise UserError(f"{folder} was tested on {len(tests)} data sets. Only runs with one are compared.")
    if not run.finished or "bbox/AP" not in scores_of(run):
        last, end = max(run.history, default=0), run.cfg.SOLVER.MAX_ITER
        raise UserError(
            f"{folder} is not finished: its last metrics are of iteration {last}, and iteration {end} is not "
            "evaluated. Continue it with train_net.py --resume."
        )
    return run


def scores_of(run: Run) -> dict[str, float]:
    """The metrics of SCORES in per cent, at MAX_ITER, be they the best or not."""
    last = run.history.get(run.cfg.SOLVER.MAX_ITER, {})
    return {key: last[key] for key in SCORES if key in last}


def pair_runs(runs: Sequence[Run]) -> list[Comparison]:
    """Put each run beside its baseline. Comparisons of one setting follow one another.

    Raises:
        UserError: for a run without a baseline, or the reverse, naming the nearest and what differs; and for
            the same training twice.
    """
    settings: dict[tuple, dict[str, dict[int, Run]]] = {}  # runs by setting, blocks and SEED
    for run in sorted(runs, key=lambda run: run.cfg.SEED):
        blocks, seed = blocks_of(run.cfg), run.cfg.SEED
        same = settings.setdefault(tuple(setting_of(run).items()), {}).setdefault(blocks, {})
        if seed in same:
            twice = f"{same[seed].folder} and {run.folder}"
            raise UserError(f"{twice} are both {blocks} with SEED {seed}. Leave one out.")
        same[seed] = run
    comparisons = []
    for variants in settings.values():
        baselines = variants.pop(BASELINE, {})
        seeds = {seed for variant in variants.values() for seed in variant}
        for variant in (baselines, *variants.values()):
            for seed in variant.keys() & (seeds ^ baselines.keys()):
                raise _no_partner(variant[seed], runs)
        for variant in variants.values():
            comparisons.append(Comparison([baselines[seed] for seed in variant], [*variant.values()]))
    return comparisons


def _no_partner(run: Run, runs: Sequence[Run]) -> UserError:
    is_baseline = blocks_of(run.cfg) == BASELINE
    wanted = "run with non-local blocks" if is_baseline else "baseline"
    message = f"{run.folder} has no {wanted} of the same setting and SEED beside it."
    others = [other for other in runs if (blocks_of(other.cfg) == BASELINE) != is_baseline]
    if not others:
        return UserError(f"{message} Train one, or leave this out.")
    nearest = min(others, key=lambda other: len(_differences(run, other)))
    return UserError(f"{message} The nearest, {nearest.folder}, has {', '.join(_differences(run, nearest))}.")


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
    """As "Mask R-CNN R50-FPN"; with a user's own backbone, the name of its builder."""
    architecture, builder = cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.BACKBONE.NAME
    if architecture == "GeneralizedRCNN":
        heads = "Keypoint" if cfg.MODEL.KEYPOINT_ON else "Mask" if cfg.MODEL.MASK_ON else "Faster"
        if cfg.MODEL.ROI_HEADS.NAME == "CascadeROIHeads":
            heads = f"Cascade {heads}".removesuffix(" Faster")
        architecture = f"{heads} R-CNN"
    if "resnet" not in builder:
        return f"{architecture} {builder}"
    neck = "-FPN"  # what the heads see of the ResNet, as the model zoo calls it
    if "fpn" not in builder:
        is_c4 = cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads"
        neck = "-C4" if is_c4 else "-DC5" if cfg.MODEL.RESNETS.RES5_DILATION == 2 else ""
    letter = "X" if cfg.MODEL.RESNETS.NUM_GROUPS > 1 else "R"
    return f"{architecture} {letter}{cfg.MODEL.RESNETS.DEPTH}{neck}"


def blocks_of(cfg: CfgNode) -> str:
    """All that a config says of its blocks, as "+1 NL in res4"; or BASELINE."""
    node, default = cfg.MODEL.NON_LOCAL, get_cfg().MODEL.NON_LOCAL
    names = []
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        every = node.KEYPOINT_HEAD_EVERY
        name = f"+{len(cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS) // every} NL in head"
        names.append(name if every == default.KEYPOINT_HEAD_EVERY else f"{name} (every {every})")
    if cfg.MODEL.BACKBONE.NAME in BASELINES:
        for stage, size in zip(STAGES, _STAGE_SIZES[cfg.MODEL.RESNETS.DEPTH], strict=True):
            if indices := sorted(k + size if k < 0 else k for k in node[stage.upper()]):
                name = f"+{len(indices)} NL in {stage}"
                names.append(name if indices == [size - 1] else f"{name} {indices}")
    arguments = ("PAIRWISE", "REDUCTION", "SUBSAMPLE", "SCALE", "NORM")
    changed = [f"{key} {node[key]}" for key in arguments if node[key] != default[key]]
    return ", ".join(names + changed) if names else BASELINE


def count_seeds(runs: Sequence[Run]) -> str:
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"
