"""The folder of an experiment: what is finished in it, and that it holds one experiment."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from far_context.folder import Experiment, check_keys, read_experiment, read_runs, set_up
from far_context.matrix import trainings
from made_up_trainings import TRAINING, Train

from nl_detectron.errors import UserError

AP = {"bbox": (30.0, 80.0), "segm": (29.0, 79.0)}


def finished(experiment: Experiment) -> list[str]:
    return [f"{training.arm.path} {training.seed}" for training, _ in read_runs(experiment)]


def test_what_is_finished(experiment: Experiment, train: Train) -> None:
    """Trained to the end, with its weights."""
    assert read_runs(experiment) == []
    train("mask/nl_res4/seed_2", **AP)
    train("mask/baseline/seed_1", **AP)
    run = train("mask/baseline/seed_2", **AP)
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps(record | {"finished": False}))
    (train("mask/baseline/seed_3", **AP).folder / "model_final.pth").unlink()
    assert finished(experiment) == ["mask/baseline 1", "mask/nl_res4 2"]


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ("mask/nl_res4/seed_1", "SOLVER.BASE_LR", "0.01"),
        ("mask/nl_res4/seed_1", "MODEL.NON_LOCAL.PAIRWISE", "gaussian"),
        ("mask/nl_res4/seed_1", "SEED", "2"),
        ("mask/nl_res4/seed_1", "MODEL.WEIGHTS", "others.pth"),
        ("keypoint/baseline/seed_1", "MODEL.WEIGHTS", ""),
    ],
)
def test_another_training_in_its_place(
    place: str, key: str, value: str, experiment: Experiment, train: Train
) -> None:
    train(place, key, value, **(AP if place.startswith("mask") else {}))
    with pytest.raises(
        UserError, match=rf"/{place} holds another training than .* SEED 1: it differs in {key}\.$"
    ):
        read_runs(experiment)


def test_an_experiment_may_be_moved_and_use_another_device(experiment: Experiment, train: Train) -> None:
    """With the weights that trainings started from; also behind a link."""
    train("mask/baseline/seed_2", **AP)
    train("keypoint/nl_head/seed_2", "MODEL.DEVICE", "cpu")
    moved = replace(experiment, output=experiment.output.with_name("moved"))
    experiment.output.rename(moved.output)
    experiment.output.symlink_to(moved.output)
    for each in (moved, experiment):
        assert finished(each) == ["mask/baseline 2", "keypoint/nl_head 2"]


def test_other_pictures(experiment: Experiment, train: Train) -> None:
    train("mask/nl_res4/seed_1", **AP)
    with pytest.raises(UserError, match="it differs in the number of images"):
        read_runs(replace(experiment, train=14))


def test_how_far_it_is(experiment: Experiment) -> None:
    training = trainings()[0]
    assert experiment.step(training) == 0
    metrics = experiment.folder(training) / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text('{"iteration": 19}\n{"iteration": 39}\n')
    assert experiment.step(training) == 39
    metrics.write_text('{"iteration": 3')  # it is being written
    assert experiment.step(training) == 0


@pytest.mark.parametrize("place", ["mask/baseline/seed_1", "keypoint/nl_head_gn/seed_3"])
def test_keys_are_those_of_all_arms(place: str, experiment: Experiment) -> None:
    assert experiment.cfg(TRAINING[place]).SOLVER.MAX_ITER == 100


@pytest.mark.parametrize(
    "key",
    ["MODEL.NON_LOCAL.SCALE", "MODEL.BACKBONE.NAME", "MODEL.WEIGHTS", "DATASETS.TEST", "SEED", "OUTPUT_DIR"],
)
def test_keys_of_the_matrix(key: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^{key} is set by the arms of the matrix"):
        set_up(Experiment(tmp_path / "out", 2, 2, ("SOLVER.MAX_ITER", "3", key, "1")))


def test_keys_that_arms_set() -> None:
    """With them, "half the learning rate" would be the rate of all."""
    experiment = Experiment(Path("out"), 2, 2, ("SOLVER.MAX_ITER", "3", "SOLVER.BASE_LR", "0.02"))
    check_keys(experiment, trainings(["mask/nl_res*", "keypoint/*_head"]))
    with pytest.raises(
        UserError, match=r"^SOLVER.BASE_LR is set by mask/concatenation_half_rate\. Leave out"
    ):
        check_keys(experiment, trainings(["mask/baseline", "mask/concatenation_half_rate"]))
    with pytest.raises(UserError, match=r"^SOLVER.MAX_ITER is set by mask/tuned_baseline"):
        check_keys(experiment, trainings(["mask/tuned_*"]))


def test_one_experiment_in_a_folder(tmp_path: Path) -> None:
    """It can be read again; a mistake leaves nothing; another experiment or a second program is refused."""
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"'SOLVER.MAX_ITERS' is not a key"):
        set_up(Experiment(output, 2, 2, ("SOLVER.MAX_ITERS", "3")))
    assert not output.exists()
    with pytest.raises(UserError, match=r"holds no experiment: it has no experiment.json"):
        read_experiment(output)
    experiment = Experiment(output, 2, 2, ("SOLVER.MAX_ITER", "3"))
    for _ in range(2):
        set_up(experiment).close()
        assert read_experiment(output) == experiment
    for other in (replace(experiment, keys=()), replace(experiment, train=4)):
        with pytest.raises(UserError, match=r"holds another experiment, .*\. Name another folder"):
            set_up(other)
    with set_up(experiment), pytest.raises(UserError, match="is in use: trainings are running in it"):
        set_up(experiment)
    sizes = json.loads((output / "datasets" / "shapes_far" / "generator.json").read_text())
    assert (sizes["mode"], sizes["train"], sizes["val"], sizes["size"]) == ("far", 2, 2, 256)
