"""What trained models make of the far test pictures: whether they decide rightly, and where blocks look.

The pictures come in pairs of the same figures with a red and a blue disc. Who does not see the disc decides
alike in both, and is right in one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou

from nl_detectron.attention import Field, Observation, observe
from nl_detectron.data.far import SWAPPED
from nl_detectron.images import read_image
from nl_detectron.predictor import Predictor
from nl_detectron.results import Run


class Look(NamedTuple):
    """How the middle of a figure attends to the disc. Weights count by their size, without sign.

    Attributes:
        red: whether the disc is.
        weight: the share of its weights on the disc: on positions that come as near to it as the map's
            stride.
        everywhere: that share, as the mean over all positions of the picture.
        alike: that share, if all weights were the same.
    """

    red: bool
    weight: float
    everywhere: float
    alike: float


@dataclass
class Seen:
    """
    Attributes:
        right: for each picture, for each figure, whether its category, or its left and right, is decided
            rightly; None if the figure is not detected.
        looks: of all figures, by the names of the blocks in the backbone.
        dependence: `Field.query_dependence` of each picture, by the same names.
    """

    right: list[list[bool | None]] = field(default_factory=list)
    looks: dict[str, list[Look]] = field(default_factory=dict)
    dependence: dict[str, list[float]] = field(default_factory=dict)

    def right_share(self) -> float:
        """In per cent of all figures. Without seeing the disc it is at most 50."""
        return 100 * np.mean([each is True for picture in self.right for each in picture])

    def told_apart_share(self) -> float:
        """In per cent of the figures of a pair: decided otherwise with a red disc than with a blue one."""
        pairs = zip(self.right[::2], self.right[1::2], strict=True)
        both = [pair for one, other in pairs for pair in zip(one, other, strict=True)]
        # Their labels are opposite: both right or both wrong.
        return 100 * np.mean([None not in pair and pair[0] == pair[1] for pair in both])


def look_at_all(run: Run) -> Seen:
    """Run a trained model on the far test pictures."""
    seen, predictor = Seen(), predictor_of(run)
    for record in DatasetCatalog.get(tested_on(run, "far")):
        observation = observe(predictor, read_image(Path(record["file_name"])))
        figures = record["annotations"]
        seen.right.append([decides_rightly(observation.instances, figure) for figure in figures])
        for each in in_backbone(observation):
            name = each.name.removeprefix("backbone.bottom_up.")
            seen.looks.setdefault(name, []).extend(look(each, figures, observation.image))
            seen.dependence.setdefault(name, []).append(each.query_dependence)
    return seen


def predictor_of(run: Run) -> Predictor:
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(run.folder / "model_final.pth")
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor(cfg)


def tested_on(run: Run, where: str) -> str:
    """Its test set of the "far" or "near" pictures."""
    return next(name for name in run.cfg.DATASETS.TEST if f"_{where}_" in name)


def in_backbone(observation: Observation) -> list[Field]:
    return [each for each in observation.fields if each.detection is None]


def decides_rightly(instances: Instances, figure: dict) -> bool | None:
    """Whether the most certain detection of a figure, with an IoU above 0.5, is right; None without one."""
    box = BoxMode.convert(figure["bbox"], figure["bbox_mode"], BoxMode.XYXY_ABS)
    found = (pairwise_iou(Boxes(torch.tensor([box])), instances.pred_boxes)[0] > 0.5).nonzero().flatten()
    if not len(found):
        return None
    best = instances[found[instances.scores[found].argmax()].item()]
    if not best.has("pred_keypoints"):
        return best.pred_classes.item() == figure["category_id"]
    truth = np.array(figure["keypoints"]).reshape(-1, 3)[:, :2]
    points = best.pred_keypoints[0, :, :2].numpy()
    right, swapped = (np.linalg.norm(points - each, axis=1).sum() for each in (truth, truth[SWAPPED]))
    return bool(right < swapped)


def look(each: Field, figures: Sequence[dict], image: np.ndarray) -> Iterator[Look]:
    """The looks of a picture's figures."""
    disc = disc_of(image)
    on_disc = within(each, disc)
    positions = [each.grid.position_at(*middle(figure["bbox"])) for figure in figures]
    shares = share(each.rows([*range(each.grid.rows * each.grid.columns)]), on_disc)
    blue, _, red = image[disc].mean(0)
    for position in positions:
        yield Look(bool(red > blue), shares[position], shares.mean(), on_disc.mean())


def share(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(K,): the share of each row (K, H', W') at the positions `where` (H', W'); 0 for a row of zeros."""
    sizes = np.abs(rows)
    return (sizes * where).sum((1, 2)) / np.maximum(sizes.sum((1, 2)), 1e-12)


def within(each: Field, disc: np.ndarray) -> np.ndarray:
    """(H', W'): the positions j that come as near to the disc, a mask, as the map's stride."""
    away = cv2.distanceTransform((~disc).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    down, across = each.grid.pooled
    size = each.grid.rows // down, each.grid.columns // across
    numbers = each.grid.paint(np.arange(size[0] * size[1]).reshape(size), *disc.shape)
    near = numbers[(away <= each.grid.width) & ~np.isnan(numbers)].astype(int)
    return np.isin(np.arange(size[0] * size[1]), near).reshape(size)


def disc_of(image: np.ndarray) -> np.ndarray:
    """The mask (H, W) of the one thing in a picture (H, W, 3) that is not grey."""
    return image.max(2).astype(int) - image.min(2) > 80


def middle(bbox: Sequence[float]) -> tuple[float, float]:
    """Of a box (left, top, width, height)."""
    left, top, width, height = bbox
    return left + width / 2, top + height / 2
