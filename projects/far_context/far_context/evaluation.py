"""What trained models make of the far test pictures: which figures they get right, and where blocks attend.

The two pictures of a pair have the same figures, one with a red and one with a blue disc. A model that
ignores the disc decides alike in both, and is right in one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.structures import Boxes, BoxMode, Instances, pairwise_iou
from torch import Tensor, nn

from nl_detectron.engine import Run
from nl_detectron.inspect import Field, Observation, observe, read_image
from nl_detectron.predictor import Predictor

from .labels import SWAPPED

Attention = tuple[bool, float, float, float]  # of a figure: see `attend`
UNDECIDED = 0.1  # of the distance from keypoints to those with left and right swapped


@dataclass
class Evaluation:
    """
    Attributes:
        right: for each figure of each picture, what `decide` says of it.
        differ: for each picture, whether its figures have different labels.
        attention: of all figures, by the name of the block in the backbone.
        dependence: `Field.query_dependence` of all pictures, by the same names.
    """

    right: list[list[float | None]] = field(default_factory=list)
    differ: list[bool] = field(default_factory=list)
    attention: dict[str, list[Attention]] = field(default_factory=dict)
    dependence: dict[str, list[float]] = field(default_factory=dict)

    def shares(self) -> dict[str, float]:
        """The shares below, by their names in the tables; that of different labels where there are any."""
        shares = {"right": self.right_share()}
        if any(self.differ):
            shares["right where the two differ"] = self.right_share_where_they_differ()
        return shares | {"told apart": self.told_apart_share()}

    def right_share(self) -> float:
        """The percentage of figures that are right, with half of the undecided ones; at most 50 for a model
        that ignores the disc.
        """
        return _right_share(self.right)

    def right_share_where_they_differ(self) -> float:
        """The same in pictures whose figures have different labels; nan without any. At most 50 for a model
        that sees the colors of all discs but not whose they are.
        """
        return _right_share([right for right, differ in zip(self.right, self.differ, strict=True) if differ])

    def told_apart_share(self) -> float:
        """The percentage of figures that are decided differently with a red and with a blue disc."""
        pairs = zip(self.right[::2], self.right[1::2], strict=True)
        both = [pair for one, other in pairs for pair in zip(one, other, strict=True)]
        # The labels of a pair are opposite: different decisions are both right or both wrong.
        return 100 * float(np.mean([pair in ((0, 0), (1, 1)) for pair in both]))

    def attention_means(self) -> dict[str, dict[str, float]]:
        """Means over the figures, for each block: the weight on the disc, in per cent, and the dependence."""
        return {block: self._means(block) for block in self.attention}

    def _means(self, block: str) -> dict[str, float]:
        figures, columns = 100 * np.array(self.attention[block]), {}
        for color, red in {"red": True, "blue": False}.items():
            _, weight, everywhere, _ = figures[(figures[:, 0] > 0) == red].mean(0)
            columns |= {f"on a {color} disc, %": weight, f"{color}: from everywhere": everywhere}
        columns |= {"if all were alike": figures[:, 3].mean()}
        return columns | {"query dependence": float(np.mean(self.dependence[block]))}


def evaluate(run: Run) -> Evaluation:
    """Run a trained model on the far test pictures.

    The maps of `controls.OthersBlock` are those of a Gaussian block, which has its own cell in them.
    """
    result, predictor = Evaluation(), predictor_of(run)
    for record in DatasetCatalog.get(dataset_of(run, "far")):
        observation = observe(predictor, read_image(Path(record["file_name"])))
        figures = record["annotations"]
        result.differ.append(len({figure["category_id"] for figure in figures}) > 1)
        result.right.append([decide(observation.instances, figure) for figure in figures])
        for each in fields_in_backbone(observation):
            name = each.name.removeprefix("backbone.bottom_up.")
            result.attention.setdefault(name, []).extend(attend(each, figures, observation.image))
            result.dependence.setdefault(name, []).append(each.query_dependence)
    return result


def _right_share(right: Sequence[Sequence[float | None]]) -> float:
    decisions = [each or 0 for picture in right for each in picture]
    return 100 * float(np.mean(decisions)) if decisions else np.nan


def predictor_of(run: Run) -> Predictor:
    """The trained model of a run, on a GPU if there is one."""
    cfg = run.cfg.clone()
    cfg.MODEL.WEIGHTS = str(run.folder / "model_final.pth")
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor(cfg)


@torch.no_grad()
def input_of(module: nn.Module, model: nn.Module, cfg: CfgNode, records: Sequence[dict]) -> Tensor:
    """What goes into a module of a model's backbone for the pictures of records, as they are resized for a
    test: (B, C, H, W).
    """
    mapper, seen = DatasetMapper(cfg, is_train=False), []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.backbone(model.preprocess_image([mapper(record) for record in records]).tensor)
    hook.remove()
    return seen[0]


def dataset_of(run: Run, mode: str) -> str:
    """The name of a run's test set with the "far" or "near" pictures."""
    return next(name for name in run.cfg.DATASETS.TEST if f"_{mode}_" in name)


def fields_in_backbone(observation: Observation) -> list[Field]:
    return [each for each in observation.fields if each.detection is None]


def decide(instances: Instances, figure: dict) -> float | None:
    """Whether the most confident detection of a figure, with an IoU above 0.5, is right: 1 or 0, or None if
    there is none.

    Keypoints are right if they are nearer to the figure's own than to those with left and right swapped. If
    they are about as near to both, like a left and a right arm found at one place, they are undecided: 0.5.
    """
    box = BoxMode.convert(figure["bbox"], figure["bbox_mode"], BoxMode.XYXY_ABS)
    found = (pairwise_iou(Boxes(torch.tensor([box])), instances.pred_boxes)[0] > 0.5).nonzero().flatten()
    if not len(found):
        return None
    best = instances[found[instances.scores[found].argmax()].item()]
    if not best.has("pred_keypoints"):
        return float(best.pred_classes.item() == figure["category_id"])
    truth = np.array(figure["keypoints"]).reshape(-1, 3)[:, :2]
    points = best.pred_keypoints[0, :, :2].numpy()
    own, swapped, between = (
        np.linalg.norm(one - other, axis=1).sum()
        for one, other in ((points, truth), (points, truth[SWAPPED]), (truth, truth[SWAPPED]))
    )
    return 0.5 if abs(own - swapped) < UNDECIDED * between else float(own < swapped)


def attend(each: Field, figures: Sequence[dict], image: np.ndarray) -> Iterator[Attention]:
    """How much the figures of a picture attend to their disc.

    Yields:
        For each figure, whether its disc is red, and the share of the weights that is on the disc: of the
        figure's center, of all positions on average, and if all weights were equal.
    """
    rows = each.rows([*range(each.grid.rows * each.grid.columns)])
    for figure in figures:
        x, y = center(figure["bbox"])
        disc = disc_at(y, image)
        on_disc = positions_on(each, disc)
        shares = share_of(rows, on_disc)
        blue, _, red = image[disc].mean(0)
        weights = (shares[each.grid.position_at(x, y)], shares.mean(), on_disc.mean())
        yield bool(red > blue), *map(float, weights)


def share_of(rows: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(K,): the share of each row's absolute weights (K, H', W') at the positions `where` (H', W').

    The share of a row of zeros is 0.
    """
    sizes = np.abs(rows)
    return (sizes * where).sum((1, 2)) / np.maximum(sizes.sum((1, 2)), 1e-12)


def positions_on(each: Field, disc: np.ndarray) -> np.ndarray:
    """(H', W') bool: the positions j no farther from the disc, a mask (H, W), than the map's stride."""
    distance = cv2.distanceTransform((~disc).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    down, across = each.grid.pooled
    size = each.grid.rows // down, each.grid.columns // across
    numbers = np.arange(size[0] * size[1]).reshape(size)
    painted = each.grid.paint(numbers, *disc.shape)
    return np.isin(numbers, painted[distance <= each.grid.width])


def disc_at(y: float, image: np.ndarray) -> np.ndarray:
    """The mask (H, W) of the disc of a figure at a height: the only one, or that of its half."""
    discs = disc_of(image)
    count, parts, _, centers = cv2.connectedComponentsWithStats(discs.astype(np.uint8))
    if count == 2:  # the background, and one disc
        return discs
    middle = len(discs) / 2
    return np.isin(parts, 1 + np.flatnonzero((centers[1:, 1] < middle) == (y < middle)))


def disc_of(image: np.ndarray) -> np.ndarray:
    """The mask (H, W) of all discs: all that is not grey in a picture (H, W, 3)."""
    return image.max(2).astype(int) - image.min(2) > 80


def center(bbox: Sequence[float]) -> tuple[float, float]:
    """The center of a box (left, top, width, height)."""
    left, top, width, height = bbox
    return left + width / 2, top + height / 2
