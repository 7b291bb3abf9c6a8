"""Top-1 and top-5 accuracy, or mean average precision of several classes, over a test set of videos."""

import itertools

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm


class VideoEvaluator(DatasetEvaluator):
    """The metrics are in per cent, of the videos that can be read; "unreadable" counts the others."""

    def __init__(self, multi_label: bool = False) -> None:
        self.multi_label = multi_label

    def reset(self) -> None:
        self._seen: list[tuple[object, np.ndarray | None]] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        for record, output in zip(inputs, outputs, strict=True):
            scores = output["scores"]
            self._seen.append((record["label"], None if scores is None else scores.cpu().numpy()))

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        seen = list(itertools.chain(*comm.gather(self._seen)))
        if not comm.is_main_process():
            return None
        read = [(label, scores) for label, scores in seen if scores is not None]
        counts = {"videos": len(read), "unreadable": len(seen) - len(read)}
        if not read:
            return {"video": counts}
        labels, scores = [label for label, _ in read], np.stack([scores for _, scores in read])
        if self.multi_label:
            return {"video": {"mAP": mean_average_precision(labels, scores), **counts}}
        return {"video": {"top1": top(1, labels, scores), "top5": top(5, labels, scores), **counts}}


def top(k: int, labels: list[int], scores: np.ndarray) -> float:
    """The percentage of rows of scores (videos, classes) whose label is among the k highest."""
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return 100 * float(np.mean([label in row for label, row in zip(labels, best, strict=True)]))


def mean_average_precision(labels: list[list[int]], scores: np.ndarray) -> float:
    """The mean precision at positive videos, and its mean over the classes, in per cent (Charades).

    Videos without any action come last.
    """
    positive = np.zeros(scores.shape, bool)
    for row, classes in zip(positive, labels, strict=True):
        row[classes] = True
    ranked = np.where(positive.any(1, keepdims=True), scores, -np.inf)  # as Charades' own code has it
    values = []
    for truth, column in zip(positive.T, ranked.T, strict=True):
        hits = truth[np.argsort(-column, kind="stable")]
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        values += [precision[hits].mean()] if hits.any() else []
    return 100 * float(np.mean(values)) if values else float("nan")
