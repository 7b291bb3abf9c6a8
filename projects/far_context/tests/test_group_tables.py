"""The tables are what the trainings say, and say what is missing."""

import subprocess

import pytest
from far_context import report
from far_context.evaluation import Evaluation
from far_context.folder import Experiment
from far_context.matrix import KEYPOINT, MAIN_PAIR, PLACES, PROJECT, SETTINGS, Training, trainings
from far_context.results import Results
from far_context.tables import attention_table, count, group_table, learnt_after, trainings_table
from made_up_trainings import TRAINING, Train, results_in


@pytest.fixture
def results(experiment: Experiment, train: Train, cheap_counting: None) -> Results:
    """Two seeds of the baseline, three of the block; and one keypoint arm. Figures are right in `right`."""
    for place, far, near, code in (
        ("mask/baseline/seed_1", 40.0, 80.0, "abc"),
        ("mask/baseline/seed_2", 42.0, 81.0, "abc"),
        ("mask/nl_res4/seed_1", 70.0, 80.5, "abc"),
        ("mask/nl_res4/seed_2", 76.0, 80.5, "aaa"),
        ("mask/nl_res4/seed_3", 73.0, 80.5, "abc"),
        ("mask/gn/seed_1", 71.0, 80.5, "abc"),
    ):
        train(place, code=code, bbox=(far, near), segm=(far - 1, near - 1))
    train("keypoint/nl_head/seed_1", bbox=(50.0, 51.0), keypoints=(20.0, 90.0))
    right = {1: [[1], [0]], 2: [[1, 1], [1, None]], 3: [[0], [0]]}
    return results_in(experiment, lambda training: Evaluation(right[training.seed]))


def rows_of(text: str) -> dict[str, dict[str, str]]:
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def test_differences_are_paired_by_seed(experiment: Experiment, results: Results) -> None:
    """Means 41 and 73; the pairs differ by 30 and 34, as the third seed has no baseline."""
    rows = rows_of(group_table(experiment, MAIN_PAIR, results))
    assert list(rows) == ["baseline", "+1 NL in res4"]
    expected = {"seeds": "1, 2", "far: right, %": "50, 75"}
    expected |= {"far: told apart, %": "0, 50", "far: AP50 > 90 after": "-, -"}
    expected |= {"far: box AP": "41.0 ± 1.4", "far: mask AP": "40.0 ± 1.4"}
    expected |= {"near: box AP": "80.5 ± 0.7", "near: mask AP": "79.5 ± 0.7"}
    assert rows["baseline"] == expected | {"multiply-adds": "1.00 G", "parameters": "2.00 M"}
    block = rows["+1 NL in res4"]
    assert block["seeds"] == "1, 2, 3"
    assert block["far: box AP"] == "73.0 ± 3.0 (+32.0 ± 2.8)"
    assert block["near: mask AP"] == "79.5 ± 0.0 (+0.0 ± 0.7)"
    assert (block["multiply-adds"], block["parameters"]) == ("+2.0%", "+5.0%")


def test_where_figures_differ(experiment: Experiment, train: Train, cheap_counting: None) -> None:
    """A column for pictures with two labels, where there are any."""
    train("mask/own_baseline/seed_1", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    right = [[1, 1], [0, 0], [1, 0], [1, 0]]

    def row(seen: Evaluation) -> dict[str, str]:
        arm = TRAINING["mask/own_baseline/seed_1"].arm
        return rows_of(group_table(experiment, [arm], results_in(experiment, lambda _: seen)))["baseline"]

    found = row(Evaluation(right, [False, False, True, True]))
    assert (found["far: right, %"], found["far: right where the two differ, %"]) == ("50", "50")
    found = row(Evaluation([*right[:2], [True, True], [True, True]], [False, False, True, True]))
    assert (found["far: right, %"], found["far: right where the two differ, %"]) == ("75", "100")


def test_each_training_is_listed(experiment: Experiment, train: Train) -> None:
    """With its revision, time, and git's name for the operation in it: "-" for an unknown revision."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    code = head.stdout.strip() or "abc"
    train("mask/baseline/seed_2", code=code, bbox=(40.0, 80.0), segm=(40.0, 80.0))
    train("mask/gn/seed_1", code="no-such-revision", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    rows = rows_of(trainings_table(results_in(experiment, lambda _: Evaluation([[1], [0]]))))
    command = ["git", "rev-parse", "--short=12", f"{code}:./../../nl_detectron/layers"]
    operation = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    expected = operation.stdout.strip() if operation.returncode == 0 else "-"
    baseline = {"seed": "2", "code": code, "operation": expected, "steps": "100", "time": "0:17:00"}
    assert rows["mask/baseline"] == baseline
    assert rows["mask/gn"]["operation"] == "-"


def test_settings_are_compared_with_the_block(experiment: Experiment, results: Results) -> None:
    rows = rows_of(group_table(experiment, SETTINGS, results))
    assert rows["+1 NL in res4"]["far: box AP"] == "73.0 ± 3.0"
    assert rows["GN after W_z"]["far: box AP"] == "71.0 (+1.0)"


def test_what_is_not_trained(experiment: Experiment, results: Results) -> None:
    """It has its row."""
    rows = rows_of(group_table(experiment, PLACES, results))
    assert list(rows) == [arm.name for arm in PLACES]
    assert rows["+1 NL in res3"] == dict.fromkeys(rows["+1 NL in res3"], "") | {"seeds": "not trained"}


def test_an_arm_without_reference_has_no_differences(experiment: Experiment, results: Results) -> None:
    rows = rows_of(group_table(experiment, KEYPOINT, results))
    assert rows["baseline"]["seeds"] == "not trained"
    assert rows["+4 NL in head"]["far: keypoint AP"] == "20.0"
    assert rows["+4 NL in head"]["near: box AP"] == "51.0"


def test_from_when_on_it_is_learnt() -> None:
    """One below 90 undoes what was."""

    def after(*values: float) -> str:
        return learnt_after(dict(zip((20, 40, 60, 100), values, strict=True)))

    assert after(50, 91, 92, 93) == "40"
    assert after(50, 91, 60, 93) == "100"
    assert after(50, 91, 60, float("nan")) == "-"
    assert after(91, 91, 91, 91) == "20"


def test_attention(experiment: Experiment, train: Train) -> None:
    """Means over the figures, for each seed; no row without a block."""
    weights = {
        1: [(True, 0.5, 0.2, 0.1), (True, 0.7, 0.2, 0.1), (False, 1.0, 0.4, 0.2)],
        2: [(True, 0.8, 0.4, 0.1), (False, 0.9, 0.4, 0.1)],
    }
    block = "res4.non_local_5"

    def seen(training: Training) -> Evaluation:
        if training.arm == MAIN_PAIR[0]:
            return Evaluation([[1], [0]])
        return Evaluation([[1], [0]], [], {block: weights[training.seed]}, {block: [0.25, 0.75]})

    for place in ("baseline/seed_1", "nl_res4/seed_1", "nl_res4/seed_2"):
        train(f"mask/{place}", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    expected = {"pictures": "one", "arm": "+1 NL in res4", "block": block, "seeds": "1, 2"}
    expected |= {"on a red disc, %": "60, 80", "red: from everywhere": "20, 40"}
    expected |= {"on a blue disc, %": "100, 90", "blue: from everywhere": "40, 40"}
    assert rows_of(attention_table(results_in(experiment, seen))) == {
        "mask": expected | {"if all were alike": "13, 10", "query dependence": "0.50, 0.50"}
    }


@pytest.mark.slow
def test_what_an_arm_costs(experiment: Experiment) -> None:
    """The block has 4 C d + 2 C = 4 * 256 * 128 + 256 * 2 weights and norms, of which three have biases."""
    one, other = (count(experiment, arm) for arm in MAIN_PAIR)
    assert other.parameters - one.parameters == 4 * 256 * 128 + 3 * 128 + 2 * 256
    assert other.multiply_adds > one.multiply_adds > 1e9


def test_summary(experiment: Experiment, results: Results) -> None:
    assert report.summary(experiment, results) == (
        f"7 of the {len(trainings())} trainings of the matrix are finished, each with 12 far and 12 near "
        "pictures. All have SOLVER.MAX_ITER 100. One took 0:17:00 (the median of the 7 that were not killed)."
    )
