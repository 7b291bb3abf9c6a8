"""TEST.BEST_METRIC: the weights of the best evaluation of a training, in `model_best.pth`."""

import logging
import math
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.evaluation.testing import flatten_results_dict

from nl_detectron.checkpoint import Checkpointer, load_safely
from nl_detectron.errors import UserError

from .evaluation import metrics_of

FIGURE = "best"  # the key in model_best.pth: metric, data sets, value and iteration

logger = logging.getLogger(__name__)


class BestCheckpoint:
    """Saves the weights when an evaluation has a larger value of a metric than those before.

    `model_best.pth` holds its figure, so that a resumed training goes on with it. It lacks the state of the
    optimizer, so --resume ignores it.
    """

    def __init__(self, cfg: CfgNode, checkpointer: Checkpointer) -> None:
        self._metric, self._value = cfg.TEST.BEST_METRIC, -math.inf
        self._origin = {"metric": self._metric, "datasets": list(cfg.DATASETS.TEST)}
        self._checkpointer = Checkpointer(
            checkpointer.model, checkpointer.save_dir, save_to_disk=checkpointer.save_to_disk
        )
        self._checkpointer.metadata = checkpointer.metadata
        self._checkpointer.is_to_resume = False
        self._path = Path(checkpointer.save_dir) / "model_best.pth"

    def resume(self) -> None:
        """Go on from the figure of the training that is resumed."""
        if self._metric and self._path.is_file():
            figure = load_safely(self._path, mmap=True).get(FIGURE, {})
            if figure.items() >= self._origin.items():
                self._value = figure["value"]

    def update(self, results: Mapping[str, object], iteration: int) -> dict[str, float]:
        """Save the weights if their evaluation is the best so far. Return the best value, by the metric."""
        metrics = flatten_results_dict(results)
        if self._metric not in metrics:
            logger.warning("TEST.BEST_METRIC %s is not among %s", self._metric, ", ".join(metrics))
        value = metrics.get(self._metric, math.nan)
        if value > self._value:  # not for nan, the AP without a detection
            figure = {**self._origin, "value": float(value), "iteration": iteration}
            self._checkpointer.save(self._path.stem, **{FIGURE: figure})
            self._value = float(value)
            logger.info("%s %.4f is the best so far, at iteration %d", self._metric, value, iteration)
        return {self._metric: self._value} if math.isfinite(self._value) else {}


def check_best_metric(cfg: CfgNode) -> None:
    """Refuse a metric that no evaluation of this config gives. Its test sets are registered."""
    for key, value in (("TEST.EVAL_PERIOD", cfg.TEST.EVAL_PERIOD), ("DATASETS.TEST", cfg.DATASETS.TEST)):
        if not value:
            raise UserError(f"TEST.BEST_METRIC compares evaluations, but {key} is {value}. Set that, too.")
    metric, names = cfg.TEST.BEST_METRIC, cfg.DATASETS.TEST
    known = [f"{name}/{each}" if len(names) > 1 else each for name in names for each in metrics_of(cfg, name)]
    if metric not in known:
        examples = " or ".join(each for each in known if each.endswith("/AP"))
        raise UserError(
            f"TEST.BEST_METRIC {metric!r} is not a metric of the evaluation. Set it to {examples}."
        )
