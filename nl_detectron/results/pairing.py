"""Which run is the baseline of which: the same in all but non-local keys, with the same SEED."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from detectron2.config import CfgNode

from nl_detectron.config import baseline_of
from nl_detectron.engine.merging import flat_pairs
from nl_detectron.errors import UserError

from .names import BASELINE, blocks_of
from .runs import Run


@dataclass(frozen=True)
class Comparison:
    """The runs of one variant, each after its baseline, in the order of their SEEDs."""

    pairs: tuple[tuple[Run, Run], ...]

    @property
    def baselines(self) -> list[Run]:
        return [baseline for baseline, _ in self.pairs]

    @property
    def runs(self) -> list[Run]:
        return [run for _, run in self.pairs]


def config_setting(cfg: CfgNode) -> dict[str, str]:
    """What a config has in common with its baseline, by key: all but non-local keys, OUTPUT_DIR and SEED."""
    own = ("MODEL.NON_LOCAL.", "OUTPUT_DIR", "SEED")
    keys = flat_pairs(baseline_of(cfg))
    return {key: json.dumps(value) for key, value in keys if not key.startswith(own)}  # a list is a tuple


def run_setting(run: Run) -> dict[str, str]:
    """What a run must have in common with its baseline."""
    of_no_key = {
        "number of processes": run.processes,
        "number of images": run.images,
        "evaluation": sorted(run.scores),
    }
    return config_setting(run.cfg) | {name: json.dumps(value) for name, value in of_no_key.items()}


def pair_runs(runs: Iterable[Run]) -> list[Comparison]:
    """Put each run beside its baseline. Those of one setting come one after another.

    Raises:
        UserError: for a run without baseline or the reverse, naming what the nearest one has otherwise;
            for the same training twice; and for one with several test sets.
    """
    settings: dict[frozenset, dict[tuple[int, str], Run]] = {}
    for run in runs:
        if len(tests := run.cfg.DATASETS.TEST) != 1:
            raise UserError(f"{run.folder}: DATASETS.TEST must be one data set; got {list(tests)}.")
        known = settings.setdefault(frozenset(run_setting(run).items()), {})
        key = run.cfg.SEED, blocks_of(run.cfg)
        if key in known:
            raise UserError(
                f"each training must be given once; {known[key].folder} and {run.folder} are both "
                f"{key[1]} with SEED {key[0]}. Leave one out."
            )
        known[key] = run
    everything = [run for known in settings.values() for run in known.values()]
    return [comparison for known in settings.values() for comparison in _compare(known, everything)]


def _compare(known: dict[tuple[int, str], Run], everything: list[Run]) -> list[Comparison]:
    """The comparisons among the runs of one setting, by SEED and blocks."""
    variants: dict[str, list[tuple[Run, Run]]] = {}
    for (seed, blocks), run in sorted(known.items(), key=lambda entry: entry[0][0]):
        if blocks != BASELINE:
            if (seed, BASELINE) not in known:
                raise _alone(run, everything)
            variants.setdefault(blocks, []).append((known[seed, BASELINE], run))
        elif not any(other_seed == seed and other != BASELINE for other_seed, other in known):
            raise _alone(run, everything)
    return [Comparison(tuple(pairs)) for pairs in variants.values()]


def _alone(run: Run, runs: Iterable[Run]) -> UserError:
    """Says what is in the way of the run that comes nearest to being its partner."""
    is_baseline = blocks_of(run.cfg) == BASELINE
    wanted = "a run with non-local blocks" if is_baseline else "a baseline"
    rule = f"{run.folder} must have {wanted} of the same setting and SEED beside it"
    others = [other for other in runs if (blocks_of(other.cfg) == BASELINE) != is_baseline]
    if not others:
        return UserError(f"{rule}; there is none. Train one, or leave this out.")
    differing, nearest = min(((_differences(run, other), other) for other in others), key=lambda d: len(d[0]))
    return UserError(f"{rule}; the nearest, {nearest.folder}, has another {'; another '.join(differing)}.")


def _differences(run: Run, other: Run) -> list[str]:
    ours, theirs = ({"SEED": str(each.cfg.SEED)} | run_setting(each) for each in (run, other))
    return [f"{key}, {theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]
