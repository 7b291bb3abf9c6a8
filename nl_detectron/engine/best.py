"""TEST.BEST_METRIC: the weights of the best evaluation of a training, in `model_best.pth`."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation.testing import flatten_results_dict

from nl_detectron.checkpoint import Checkpointer, load_safely
from nl_detectron.errors import UserError

FIGURE = "best"  # the key in model_best.pth: the metric, its value and the iteration

logger = logging.getLogger(__name__)


class BestCheckpoint:
    """Saves the weights when an evaluation has a larger value of a metric than those before.

    `model_best.pth` holds its figure, so that a resumed training goes on with it. It is no checkpoint to
    resume from: without the state of the optimizer it is half as large.
    """

    def __init__(self, metric: str, checkpointer: Checkpointer) -> None:
        self._metric, self._value = metric, -math.inf
        self._checkpointer = Checkpointer(
            checkpointer.model, checkpointer.save_dir, save_to_disk=checkpointer.save_to_disk
        )
        self._checkpointer.is_to_resume = False
        self._path = Path(checkpointer.save_dir) / "model_best.pth"

    def resume(self) -> None:
        """Go on from the figure of the training that is resumed."""
        figure = load_safely(self._path).get(FIGURE, {}) if self._path.is_file() else {}
        if figure.get("metric") == self._metric:
            self._value = figure["value"]

    def update(self, results: Mapping[str, object], iteration: int) -> float:
        """Save the weights if their evaluation is the best so far; the best value in any case."""
        metrics = flatten_results_dict(results)
        if self._metric not in metrics:
            logger.warning("TEST.BEST_METRIC %s is not among %s", self._metric, ", ".join(metrics))
        value = metrics.get(self._metric, math.nan)
        if value > self._value:  # not for nan, the AP without a detection
            figure = {"metric": self._metric, "value": float(value), "iteration": iteration}
            self._checkpointer.save(self._path.stem, **{FIGURE: figure})
            self._value = float(value)
            logger.info("%s %.4f is the best so far, at iteration %d", self._metric, value, iteration)
        return self._value


def check_best_metric(cfg: CfgNode) -> None:
    """Refuse a metric that no evaluation of this config gives."""
    if not (metric := cfg.TEST.BEST_METRIC):
        return
    if not cfg.TEST.EVAL_PERIOD:
        raise UserError("TEST.BEST_METRIC compares evaluations, but TEST.EVAL_PERIOD is 0. Set that, too.")
    enabled = {"bbox": True, "segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    names = cfg.DATASETS.TEST
    sets = [f"{name}/" for name in names] if len(names) > 1 else [""]
    tasks = [f"{prefix}{task}" for prefix in sets for task, is_enabled in enabled.items() if is_enabled]
    task, _, figure = metric.rpartition("/")
    if task not in tasks or not re.fullmatch(r"AP(50|75|s|m|l|-.+)?", figure):
        remedy = f"Set it to {' or '.join(f'{task}/AP' for task in tasks)}."
        raise UserError(f"TEST.BEST_METRIC {metric!r} is not what the evaluation gives. {remedy}")
