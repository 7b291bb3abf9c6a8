"""What the tests share: an experiment, and finished trainings that nobody has trained."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from far_context.folder import Experiment
from far_context.matrix import ARMS, SEEDS, Training

from nl_detectron.engine import Run, read_run

Train = Callable[..., Run]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _registrations_forgotten() -> Iterator[None]:
    yield
    for name in [name for name in DatasetCatalog.list() if "shapes_far" in name or "shapes_near" in name]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "out", 12, 6, ("SOLVER.MAX_ITER", "100"))


@pytest.fixture(scope="session")
def training_of() -> dict[str, Training]:
    """A training by its place in the output folder, like "mask/baseline/seed_1"."""
    return {f"{arm.path}/seed_{seed}": Training(arm, seed) for arm in ARMS for seed in SEEDS}


@pytest.fixture
def train(experiment: Experiment, training_of: dict[str, Training]) -> Train:
    """Make up a finished training, with far and near AP for each task, and half of it as AP50.

    Args:
        options: keys of the config, and their values, that it has otherwise.
        folder: where, if not in its place.
    """

    def make_up(place: str, *options: str, folder: Path | None = None, **scores: tuple[float, float]) -> Run:
        training = training_of[place]
        folder = folder or experiment.folder(training)
        folder.mkdir(parents=True)
        cfg = experiment.cfg(training)
        cfg.merge_from_list([*options])
        images = dict.fromkeys(cfg.DATASETS.TRAIN, 12) | dict.fromkeys(cfg.DATASETS.TEST, 6)
        commands = [{"code": "abc", "start": 0, "seconds": 1020, "changed": []}]
        record = {"config": cfg.dump(), "processes": 1, "images": images, "commands": commands}
        (folder / "run.json").write_text(json.dumps(record | {"finished": True}))
        last = {"iteration": 100}
        for task, values in scores.items():
            for name, value in zip(cfg.DATASETS.TEST, reversed(values), strict=True):  # near, far
                last |= {f"{name}/{task}/AP": value, f"{name}/{task}/AP50": value / 2}
        lines = [{"iteration": 99, "loss_cls": 1.0, "loss_keypoint": 1.0}, last]
        (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return read_run(folder)

    return make_up
