"""Do blocks look at the disc? The weight that the middle of each far figure gives to it, and pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from matplotlib.figure import Figure
from tabulate import tabulate
from tqdm import tqdm

from nl_detectron.attention import Field, draw_queries, observe, queries
from nl_detectron.config import BACKBONE_BUILDERS
from nl_detectron.data import register_shapes
from nl_detectron.images import read_image
from nl_detectron.predictor import Predictor
from nl_detectron.results import Run, mean_score

from .matrix import Arm

PICTURES = "shapes_far_val"  # those with keypoints are the same


class Look(NamedTuple):
    """How a figure looks at the disc.

    Attributes:
        weight: the share of the weights, without signs, of the positions that the disc reaches into.
        alike: that share if all weights were alike.
        first: whether the position of the largest weight is one of them.
    """

    weight: float
    alike: float
    first: bool


def attention_table(runs: dict[Arm, dict[int, Run]], datasets: Path) -> str:
    """A row for each block in a backbone, means over the figures and ± their spread over seeds."""
    register_shapes(datasets)
    rows = []
    watching = {
        arm: by_seed for arm, by_seed in runs.items() if arm.cfg().MODEL.BACKBONE.NAME in BACKBONE_BUILDERS
    }
    bar = tqdm(
        [(arm, run) for arm, by_seed in watching.items() for run in by_seed.values()], desc="attention"
    )
    seen: dict[tuple[Arm, str], list[np.ndarray]] = {}
    for arm, run in bar:
        for block, looks in looks_of(run).items():
            seen.setdefault((arm, block), []).append(100 * np.mean(looks, axis=0))
    for (arm, block), means in seen.items():
        columns = zip(*means, strict=True)  # of the seeds
        weight, alike, first = (mean_score([float(value) for value in column]) for column in columns)
        rows.append([arm.task, arm.name, block, len(means), weight, alike, first])
    header = ["task", "arm", "block", "seeds", "weight on the disc, %", "if all were alike, %"]
    return tabulate(
        rows, [*header, "figures whose largest weight is on it, %"], "github", disable_numparse=True
    )


def looks_of(run: Run) -> dict[str, list[Look]]:
    """The looks of all far figures at their disc, by the names of the blocks in the backbone."""
    predictor = _predictor(run)
    looks: dict[str, list[Look]] = {}
    for record in DatasetCatalog.get(PICTURES):
        image = read_image(Path(record["file_name"]))
        disc = disc_of(image)
        for field in _in_backbone(observe(predictor, image).fields):
            for annotation in record["annotations"]:
                position = field.grid.position_at(*middle(annotation["bbox"]))
                name = field.name.removeprefix("backbone.bottom_up.")
                looks.setdefault(name, []).append(look(field, position, disc))
    return looks


def look(field: Field, position: int, disc: np.ndarray) -> Look:
    """How a position looks at a disc, a mask of the image."""
    weights = np.abs(field.rows([position])[0])
    numbers = np.arange(weights.size).reshape(weights.shape)
    reached = np.unique(field.grid.paint(numbers, *disc.shape)[disc]).astype(int)
    weights = weights.flatten() / weights.sum()
    return Look(weights[reached].sum(), len(reached) / weights.size, bool(weights.argmax() in reached))


def disc_of(image: np.ndarray) -> np.ndarray:
    """The mask (H, W) of the one thing in a picture (H, W, 3) that is not grey."""
    return image.max(2).astype(int) - image.min(2) > 80


def middle(bbox: list[float]) -> tuple[float, float]:
    """Of a box (left, top, width, height)."""
    left, top, width, height = bbox
    return left + width / 2, top + height / 2


def draw_attention(runs: dict[Arm, dict[int, Run]], datasets: Path) -> Iterator[tuple[str, Figure]]:
    """For the first far pair, by category, the figure of the main arm's first training."""
    arm = next((arm for arm in runs if arm.path == "mask/nl_res4"), None)
    if arm is None:
        return
    register_shapes(datasets)
    predictor = _predictor(next(iter(runs[arm].values())))
    categories = predictor.metadata.thing_classes
    for record in DatasetCatalog.get(PICTURES)[:2]:
        observation = observe(predictor, read_image(Path(record["file_name"])))
        annotation = record["annotations"][0]
        category = categories[annotation["category_id"]]
        x, y = middle(annotation["bbox"])
        asked = [queries.Query(category, "", x, y, field) for field in _in_backbone(observation.fields)]
        yield category, draw_queries(observation.image, asked)


def _in_backbone(fields: list[Field]) -> list[Field]:
    return [field for field in fields if field.detection is None]


def _predictor(run: Run) -> Predictor:
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = str(run.folder / "model_final.pth")
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    return Predictor(cfg)
