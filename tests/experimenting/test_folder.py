"""The folder of an experiment: what is finished in it, and that it holds one experiment."""

import fcntl
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from experimenting.folder import Experiment, check_keys, keep, kept, read_all
from experimenting.matrix import ARMS, Training, trainings
from made_up_runs import Train

from nl_detectron.errors import UserError

AP = {"bbox": (30.0, 80.0), "segm": (29.0, 79.0)}


def test_what_is_finished(experiment: Experiment, train: Train) -> None:
    train("mask/nl_res4", 2, **AP)
    train("mask/baseline", 1, **AP)
    runs = read_all(experiment)
    assert [(arm.path, [*by_seed]) for arm, by_seed in runs.items()] == [
        ("mask/baseline", [1]),
        ("mask/nl_res4", [2]),
    ]
    shutil.rmtree(experiment.output)
    with pytest.raises(UserError, match="--output must have finished trainings; .* has none"):
        read_all(experiment)


@pytest.mark.parametrize(
    ("arm", "key", "value"),
    [
        ("mask/nl_res4", "SOLVER.BASE_LR", "0.01"),
        ("mask/nl_res4", "MODEL.NON_LOCAL.PAIRWISE", "gaussian"),
        ("mask/nl_res4", "SEED", "2"),
        ("mask/nl_res4", "MODEL.WEIGHTS", "others.pth"),
        ("keypoint/baseline", "MODEL.WEIGHTS", ""),
        ("keypoint/baseline", "MODEL.WEIGHTS", "mask/baseline/seed_1/model_final.pth"),
    ],
)
def test_another_training_in_its_place(
    arm: str, key: str, value: str, experiment: Experiment, train: Train
) -> None:
    train(arm, 1, key, value, **AP)
    with pytest.raises(UserError, match=rf"seed_1 must be {arm} with SEED 1; it has another {key}\.$"):
        read_all(experiment)


def test_an_experiment_may_be_moved(experiment: Experiment, train: Train) -> None:
    """With the weights that trainings began with."""
    for arm in ("mask/baseline", "keypoint/nl_head"):
        train(arm, 2, **AP)
    moved = replace(experiment, output=experiment.output.with_name("moved"))
    experiment.output.rename(moved.output)
    assert [(arm.path, [*by_seed]) for arm, by_seed in read_all(moved).items()] == [
        ("mask/baseline", [2]),
        ("keypoint/nl_head", [2]),
    ]


def test_other_pictures(experiment: Experiment, train: Train) -> None:
    train("mask/nl_res4", 1, **AP)
    others = Experiment(experiment.output, 14, 6, experiment.keys)
    with pytest.raises(UserError, match="it has another number of images"):
        read_all(others)


def test_how_far_it_is(experiment: Experiment) -> None:
    training = trainings()[0]
    assert experiment.step(training) == 0
    metrics = experiment.folder(training) / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"iteration": 19}\n{"iteration": 39}\n')
    assert experiment.step(training) == 39
    metrics.write_text('{"iteration": 3')  # it is being written
    assert experiment.step(training) == 0


def test_the_keys_are_the_arms_too(experiment: Experiment) -> None:
    for arm in ARMS:
        assert experiment.cfg(arm).SOLVER.MAX_ITER == 100
    assert experiment.folder(Training(ARMS[0], 3)) == experiment.output / "mask" / "baseline" / "seed_3"


@pytest.mark.parametrize(
    "key",
    ["MODEL.NON_LOCAL.SCALE", "MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "DATASETS.TEST", "SEED", "OUTPUT_DIR"],
)
def test_keys_by_which_arms_differ(key: str) -> None:
    with pytest.raises(UserError, match=rf"^{key} must be left to the arms of the matrix"):
        check_keys(["SOLVER.MAX_ITER", "3", key, "1"])


def test_one_experiment_in_a_folder(tmp_path: Path) -> None:
    """What is kept comes back; a mistake leaves nothing, and others are refused."""
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"'SOLVER.MAX_ITERS' must be a key"):
        keep(Experiment(output, 2, 2, ["SOLVER.MAX_ITERS", "3"]))
    assert not output.exists()
    with pytest.raises(UserError, match=r"must be the folder of an experiment; .* has no experiment.json"):
        kept(output)
    experiment = Experiment(output, 2, 2, ["SOLVER.MAX_ITER", "3"])
    for _ in range(2):
        keep(experiment).close()
        assert kept(output) == experiment
    for other in (Experiment(output, 2, 2), Experiment(output, 4, 2, experiment.keys)):
        with pytest.raises(UserError, match="--output must be a folder of the same pictures and keys"):
            keep(other)
    sizes = json.loads((output / "datasets" / "shapes_far" / "generator.json").read_text())
    assert (sizes["mode"], sizes["train"], sizes["val"], sizes["size"]) == ("far", 2, 2, 256)


def test_who_comes_second(tmp_path: Path) -> None:
    experiment = Experiment(tmp_path / "out", 2, 2)
    with keep(experiment) as lock:
        with pytest.raises(UserError, match="trainings are running in it"):
            keep(experiment)
        fcntl.flock(lock, fcntl.LOCK_UN)
        keep(experiment).close()
