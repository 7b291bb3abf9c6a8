"""Output folders of train_net.py that no training has written, with log lines of Detectron2's."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from nl_detectron import model_zoo
from nl_detectron.results import Run, read_run

MASK = "quick_schedules/mask_rcnn_R_18_FPN_shapes.yaml"
MASK_NL = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Train = Callable[..., Run]
COCO = (118287, 5000)  # images of train2017 and val2017
TINY = ("SOLVER.MAX_ITER", "100", "SEED", "1")

_SETUP = """\
[11/23 03:21:47] detectron2 INFO: Rank of current process: 0. World size: {processes}
[11/23 03:21:47] detectron2 INFO: Running with full config:
{config}
[11/23 03:21:47] detectron2 INFO: Full config saved to {folder}/config.yaml
[11/23 03:21:47] nl_detectron.engine.launcher INFO: nl_detectron 0.1.0 ({code}), SEED 1, {processes} processes
[11/23 03:21:47] d2.data.datasets.coco INFO: Loaded {images[0]} images in COCO format from train.json
"""
START = "[11/23 03:21:47] d2.engine.train_loop INFO: Starting training from iteration {start}\n"
END = "[11/23 03:21:49] d2.engine.hooks INFO: Total training time: {time} (0:00:00 on hooks)\n"
EVALUATION = """\
[11/23 03:21:49] d2.data.datasets.coco INFO: Loaded {images[1]} images in COCO format from val.json
[11/23 03:21:49] d2.evaluation.testing INFO: copypaste: Task: bbox
"""
WHOLE = START + END + EVALUATION


@cache
def _dump(config: str, options: tuple[str, ...]) -> str:
    """The config as Detectron2 logs it, in colours."""
    cfg = model_zoo.get_config(config)
    cfg.merge_from_list([*TINY, *options])
    return cfg.dump().strip().replace("SOLVER:", "\x1b[38;5;204mSOLVER\x1b[39m\x1b[38;5;255m:\x1b[39m")


def write_log(
    folder: Path,
    config: str = MASK,
    *options: str,
    events: str = WHOLE,
    processes: int = 1,
    code: str = "git revision abc",
    **values: object,
) -> None:
    """Append what a command logs to log.txt.

    Args:
        options: keys of the config and their values.
        events: the lines after the set-up.
        values: what `events` leaves open.
    """
    values = {"start": 0, "time": "0:00:02", "images": (12, 6)} | values
    values |= {"folder": folder, "config": _dump(config, options), "processes": processes, "code": code}
    folder.mkdir(exist_ok=True, parents=True)
    with (folder / "log.txt").open("a") as log:
        log.write((_SETUP + events).format(**values))


def write_metrics(folder: Path, iteration: int, loss: float = 1.0, **scores: Sequence[float]) -> None:
    """Append to metrics.json the loss of an iteration, and an evaluation's AP, AP50 and AP75 of each task."""
    metrics: dict[str, float] = {"iteration": iteration, "total_loss": loss}
    for task, values in scores.items():
        metrics |= {
            f"{task}/{name}": value for name, value in zip(("AP", "AP50", "AP75"), values, strict=True)
        }
    with (folder / "metrics.json").open("a") as file:
        file.write(json.dumps(metrics) + "\n")


def finished(
    folder: Path, config: str = MASK, *options: str, scores: Mapping[str, Sequence[float]], **log: object
) -> Run:
    """A whole training of 100 steps, with these AP, AP50 and AP75 at its end."""
    write_log(folder, config, *options, **log)
    write_metrics(folder, 99)
    write_metrics(folder, 100, **scores)
    return read_run(folder)
