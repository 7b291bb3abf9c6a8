"""What the tests share: an experiment, and finished trainings that nobody has trained."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.transforms import RandomFlip
from detectron2.structures import Instances
from far_context import tables
from far_context.folder import Experiment
from far_context.matrix import Arm
from made_up_trainings import Train, make_up

from nl_detectron.inspect import Counts


@pytest.fixture(autouse=True, scope="module")
def _registrations_forgotten() -> Iterator[None]:
    yield
    names = [f"shapes_{kind}" for kind in ("far", "near", "own", "ends")]
    for name in [each for each in DatasetCatalog.list() if any(name in each for name in names)]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def flipped() -> Callable[[str], Iterator[tuple[np.ndarray, Instances]]]:
    """Images (H, W, 3) and instances of a keypoint data set, as Detectron2 flips them."""

    def flip(dataset: str) -> Iterator[tuple[np.ndarray, Instances]]:
        cfg = get_cfg()
        cfg.MODEL.KEYPOINT_ON, cfg.DATASETS.TRAIN = True, (dataset,)
        mapper = DatasetMapper(cfg, augmentations=[RandomFlip(prob=1.0)])
        for record in DatasetCatalog.get(dataset):
            mapped = mapper(record)
            yield mapped["image"].permute(1, 2, 0).numpy(), mapped["instances"]

    return flip


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "out", 12, 6, ("SOLVER.MAX_ITER", "100"))


@pytest.fixture
def train(experiment: Experiment) -> Train:
    """`make_up` in `experiment`."""
    return partial(make_up, experiment)


@pytest.fixture
def cheap_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block costs 2 % more multiply-adds and 5 % more parameters."""

    def count(_: Experiment, arm: Arm) -> Counts:
        is_baseline = arm.name == "baseline"
        return Counts(2_000_000, 1_000_000_000, 1) if is_baseline else Counts(2_100_000, 1_020_000_000, 1)

    monkeypatch.setattr(tables, "count", count)
