"""results.jsonl: what is kept of trainings, for which nothing has to be trained or evaluated again."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from far_context import results
from far_context.evaluation import Evaluation
from far_context.folder import Experiment
from far_context.results import digest, read_results, update_results
from made_up_trainings import TRAINING, Train, make_up

from nl_detectron.engine import Run
from nl_detectron.errors import UserError

AP = {"bbox": (70.0, 80.0), "segm": (69.0, 79.0)}


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> Mock:
    seen = Evaluation(
        [[1], [None]], [False, False], {"res4": [(True, 0.5, 0.2, 0.1), (False, 0.5, 0.2, 0.1)]}
    )
    seen.dependence["res4"] = [1 / 3]
    monkeypatch.setattr(results, "evaluate", evaluate := Mock(return_value=seen))
    return evaluate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


def test_what_is_kept(experiment: Experiment, train: Train, evaluated: Mock, file: Path) -> None:
    """All that the tables show, rounded; the same when it is read again, also without the weights."""
    train("mask/nl_res4/seed_2", code="no-such-revision", **AP)
    kept = update_results(experiment, file)
    assert (
        kept == read_results(experiment, file) == read_results(replace(experiment, output=file.parent), file)
    )
    (result,) = kept.values()
    assert (result.arm, result.seed, result.seconds) == ("mask/nl_res4", 2, 1020)
    assert (result.code, result.operation) == (["no-such-revision"], ["-"])
    assert result.shares == {"right": 50, "told apart": 0}
    assert result.attention["res4"]["query dependence"] == 0.3333
    assert result.curves["loss"] == {99: 1.0}
    assert result.curves["far/bbox/AP50"] == {100: 35.0}
    assert result.last("near/segm/AP") == 79


def test_each_training_is_evaluated_once(
    experiment: Experiment, train: Train, evaluated: Mock, file: Path
) -> None:
    """In the order of the matrix. What is kept stays, also if another folder has the training again."""
    train("mask/nl_res4/seed_2", **AP)
    update_results(experiment, file)
    train("mask/baseline/seed_3", **AP)
    assert [each.arm for each in update_results(experiment, file).values()] == [
        "mask/baseline",
        "mask/nl_res4",
    ]
    assert evaluated.call_count == 2
    elsewhere = replace(experiment, output=experiment.output.with_name("elsewhere"))
    make_up(elsewhere, "mask/baseline/seed_3", code="other", **AP)
    make_up(elsewhere, "mask/gn/seed_1", code="other", **AP)
    codes = [each.code for each in update_results(elsewhere, file).values()]
    assert codes == [["abc"], ["abc"], ["other"]]
    assert evaluated.call_count == 3


def test_two_experiments_write_into_one_file(
    experiment: Experiment, train: Train, evaluated: Mock, file: Path
) -> None:
    """While one evaluates, the other adds its results: both are kept."""
    elsewhere = replace(experiment, output=experiment.output.with_name("elsewhere"))
    train("mask/nl_res4/seed_2", **AP)
    make_up(elsewhere, "mask/baseline/seed_3", **AP)
    seen = evaluated.return_value

    def meanwhile(run: Run) -> Evaluation:
        evaluated.side_effect = None
        update_results(elsewhere, file)
        return seen

    evaluated.side_effect = meanwhile
    kept = update_results(experiment, file)
    assert [each.arm for each in kept.values()] == ["mask/baseline", "mask/nl_res4"]
    assert read_results(experiment, file) == kept


def test_what_was_evaluated_is_kept_when_one_fails(
    experiment: Experiment, train: Train, evaluated: Mock, file: Path
) -> None:
    def fail_for_the_block(run: Run) -> Evaluation:
        if "nl_res4" in str(run.folder):
            raise RuntimeError("no memory")
        return Evaluation([[1], [0]])

    train("mask/nl_res4/seed_1", **AP)
    train("mask/baseline/seed_1", **AP)
    evaluated.side_effect = fail_for_the_block
    with pytest.raises(RuntimeError, match="no memory"):
        update_results(experiment, file)
    assert [each.arm for each in read_results(experiment, file).values()] == ["mask/baseline"]


def test_what_was_trained_otherwise(
    experiment: Experiment, train: Train, evaluated: Mock, file: Path
) -> None:
    """With other keys or pictures, a training is not the one that the matrix declares."""
    train("mask/nl_res4/seed_1", **AP)
    update_results(experiment, file)
    for other in (replace(experiment, train=14), replace(experiment, keys=("SOLVER.MAX_ITER", "90"))):
        with pytest.raises(
            UserError, match=r"line 1: mask/nl_res4 with SEED 1 was trained with other keys or"
        ):
            read_results(other, file)


def test_a_training_is_another_from_another_start(experiment: Experiment) -> None:
    training = TRAINING["mask/tuned_nl_res4/seed_1"]
    arm = replace(training.arm, start=TRAINING["mask/gn/seed_1"].arm)
    assert digest(experiment, training) != digest(experiment, replace(training, arm=arm))
    assert digest(experiment, training) == digest(replace(experiment, output=Path("moved")), training)


@pytest.mark.parametrize("change", [{"arm": "mask/no"}, {"curves": None}, {"seed": None}, {"more": 1}, "{"])
def test_a_damaged_line(
    change: dict | str, experiment: Experiment, train: Train, evaluated: Mock, file: Path
) -> None:
    train("mask/nl_res4/seed_1", **AP)
    (result,) = update_results(experiment, file).values()
    line = change if isinstance(change, str) else json.dumps(asdict(result) | change)
    file.write_text(f"{file.read_text()}{line}\n")
    with pytest.raises(UserError, match=r"results.jsonl, line 2 "):
        read_results(experiment, file)
