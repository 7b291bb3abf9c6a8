"""What the tests of the experiment share: its folder, and trainings that nobody has trained."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from experimenting import tables
from experimenting.folder import Experiment
from experimenting.matrix import ARMS, Training
from made_up_runs import Train, finished
from nl_detectron.results import Run
from runs import registrations_forgotten

from nl_detectron.inspect.analysis import Counts


@pytest.fixture(autouse=True)
def _own_pictures() -> Iterator[None]:
    with registrations_forgotten():
        yield


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(tmp_path / "out", 12, 6, ("SOLVER.MAX_ITER", "100"))


@pytest.fixture
def train(experiment: Experiment) -> Train:
    """Make up a training of an arm, with the AP, and half of it as AP50, of far and of near pictures."""

    def make_up(path: str, seed: int, *options: str, **scores: tuple[float, float]) -> Run:
        arm = next(arm for arm in ARMS if arm.path == path)
        kind = "keypoints_" * path.startswith("keypoint")
        by_set = {
            f"{kind}shapes_{where}_val/{task}": (values[k], values[k] / 2, 0.0)
            for task, values in scores.items()
            for k, where in enumerate(("far", "near"))
        }
        training = Training(arm, seed)
        options = (*arm.keys, *experiment.own_keys(training), *options)
        config = f"quick_schedules/{arm.config}"
        return finished(experiment.folder(training), config, *options, scores=by_set, time="0:17:00")

    return make_up


@pytest.fixture
def cheap_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    def count(_: Experiment, arm: object) -> Counts:
        is_baseline = arm.name == "baseline"
        return Counts(2_000_000, 1_000_000_000, 1) if is_baseline else Counts(2_100_000, 1_020_000_000, 1)

    monkeypatch.setattr(tables, "count", count)
