"""Output folders of train_net.py that no training has written: run.json and metrics.json."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from detectron2.config import CfgNode

from nl_detectron import get_cfg
from nl_detectron.engine import Run, find_config, read_run

MASK = "quick_schedules/mask_rcnn_R_18_FPN_shapes.yaml"
MASK_NL = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Scores = Mapping[str, Sequence[float]]  # AP, AP50 and AP75 of each task


@cache
def config_with(config: str, options: tuple[str, ...]) -> CfgNode:
    """A shipped config with 100 steps, SEED 1 and other keys."""
    cfg = get_cfg()
    cfg.merge_from_file(find_config(config))
    cfg.merge_from_list(["SOLVER.MAX_ITER", "100", "SEED", "1", *options])
    return cfg


def command(code: str = "abc", start: int = 0, seconds: int | None = 2, changed: Sequence[str] = ()) -> dict:
    """What run.json has of a command that trained."""
    return {"code": code, "start": start, "seconds": seconds, "changed": [*changed]}


def write_record(
    folder: Path,
    config: str = MASK,
    *options: str,
    commands: Sequence[dict] = (),
    images: Mapping[str, int] | None = None,
    processes: int = 1,
    finished: bool = True,
) -> None:
    """Write run.json.

    Args:
        options: keys of the config and their values.
        commands: one, by default.
        images: 12 to train on and 6 to test on, by default.
    """
    cfg = config_with(config, options)
    if images is None:
        images = dict.fromkeys(cfg.DATASETS.TRAIN, 12) | dict.fromkeys(cfg.DATASETS.TEST, 6)
    record = {"config": cfg.dump(), "processes": processes, "images": images, "finished": finished}
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "run.json").write_text(json.dumps({**record, "commands": [*commands] or [command()]}))


def write_metrics(folder: Path, iteration: int, loss: float = 1.0, **scores: Sequence[float]) -> None:
    """Append to metrics.json the loss of an iteration, and an evaluation's AP, AP50 and AP75 of each task."""
    metrics: dict[str, float] = {"iteration": iteration, "total_loss": loss}
    for task, values in scores.items():
        for name, value in zip(("AP", "AP50", "AP75"), values, strict=True):
            metrics[f"{task}/{name}"] = value
    with (folder / "metrics.json").open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def finished(folder: Path, config: str = MASK, *options: str, scores: Scores, **record: object) -> Run:
    """A complete training of 100 steps, with these scores at its end.

    Args:
        record: as in `write_record`.
    """
    write_record(folder, config, *options, **record)
    write_metrics(folder, 99)
    write_metrics(folder, 100, **scores)
    return read_run(folder)


def run(
    folder: Path,
    seed: int = 1,
    ap: float = 30.0,
    *options: str,
    task: str = "bbox",
    config: str = "",
    images: dict[str, int] | None = None,
    processes: int = 1,
    code: tuple[str, ...] = ("abc",),
    seconds: int | None = 2,
) -> Run:
    """A made-up run with this AP for boxes and a task; with blocks if the folder's name begins with "nl"."""
    config = config or (MASK_NL if folder.name.startswith("nl") else MASK)
    cfg = config_with(config, ("SEED", str(seed), *options))
    if images is None:
        images = dict.fromkeys(cfg.DATASETS.TRAIN, 12) | dict.fromkeys(cfg.DATASETS.TEST, 6)
    scores = {
        f"{name}/{key}": value
        for name in ("bbox", task)
        for key, value in (("AP", ap), ("AP50", 50.0), ("AP75", 20.0))
    }
    return Run(folder, cfg, processes, images, code, seconds, True, {100: scores})
