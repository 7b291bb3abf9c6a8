"""The tables are what the trainings say, and say what is missing."""

import subprocess

import pytest
from far_context import report
from far_context.evaluation import Evaluation
from far_context.folder import Experiment, read_runs
from far_context.matrix import ARMS, KEYPOINT, MAIN_PAIR, PLACES, PROJECT, SETTINGS, trainings
from far_context.tables import Evaluated, attention_table, count, group_table, learnt_after, trainings_table
from made_up_trainings import Train

ARM = {arm.path: arm for arm in ARMS}
Arms = dict[object, Evaluated]


@pytest.fixture
def arms(experiment: Experiment, train: Train, cheap_counting: None) -> Arms:
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
    right = {1: [[True], [False]], 2: [[True, True], [True, None]], 3: [[False], [False]]}
    return {
        arm: {seed: (run, Evaluation(right[seed])) for seed, run in by_seed.items()}
        for arm, by_seed in read_runs(experiment).items()
    }


def rows_of(text: str) -> dict[str, dict[str, str]]:
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def test_differences_are_paired_by_seed(experiment: Experiment, arms: Arms) -> None:
    """Means 41 and 73; the pairs differ by 30 and 34, as the third seed has no baseline."""
    rows = rows_of(group_table(experiment, MAIN_PAIR, arms))
    assert list(rows) == ["baseline", "+1 NL in res4"]
    expected = {"seeds": "1, 2", "code": "abc", "far: right, %": "62.5 ± 17.7"}
    expected |= {"far: told apart, %": "25.0 ± 35.4", "far: AP50 > 90 after": "-, -"}
    expected |= {"far: box AP": "41.0 ± 1.4", "far: mask AP": "40.0 ± 1.4"}
    expected |= {"near: box AP": "80.5 ± 0.7", "near: mask AP": "79.5 ± 0.7"}
    assert rows["baseline"] == expected | {"multiply-adds": "1.00 G", "parameters": "2.00 M"}
    block = rows["+1 NL in res4"]
    assert (block["seeds"], block["code"]) == ("1, 2, 3", "aaa, abc")
    assert block["far: box AP"] == "73.0 ± 3.0 (+32.0 ± 2.8)"
    assert block["near: mask AP"] == "79.5 ± 0.0 (+0.0 ± 0.7)"
    assert (block["multiply-adds"], block["parameters"]) == ("+2.0%", "+5.0%")


def test_where_figures_differ(experiment: Experiment, train: Train, cheap_counting: None) -> None:
    """A column for pictures with two labels, where there are any."""
    run = train("mask/own_baseline/seed_1", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    right = [[True, True], [False, False], [True, False], [True, False]]
    seen = Evaluation(right, [False, False, True, True])
    arm = ARM["mask/own_baseline"]
    row = rows_of(group_table(experiment, [arm], {arm: {1: (run, seen)}}))["baseline"]
    assert (row["far: right, %"], row["far: right where the two differ, %"]) == ("50.0", "50.0")
    seen.right[2:] = [[True, True], [True, True]]
    row = rows_of(group_table(experiment, [arm], {arm: {1: (run, seen)}}))["baseline"]
    assert (row["far: right, %"], row["far: right where the two differ, %"]) == ("75.0", "100.0")


def test_each_training_is_listed(experiment: Experiment, train: Train) -> None:
    """With its revision, time, and git's name for the operation in it: "-" for an unknown revision."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    code = head.stdout.strip() or "abc"
    train("mask/baseline/seed_2", code=code, bbox=(40.0, 80.0), segm=(40.0, 80.0))
    train("mask/gn/seed_1", code="no-such-revision", bbox=(40.0, 80.0), segm=(40.0, 80.0))
    rows = rows_of(trainings_table(read_runs(experiment)))
    command = ["git", "rev-parse", "--short=12", f"{code}:./../../nl_detectron/layers"]
    operation = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    expected = operation.stdout.strip() if operation.returncode == 0 else "-"
    baseline = {"seed": "2", "code": code, "operation": expected, "steps": "100", "time": "0:17:00"}
    assert rows["mask/baseline"] == baseline
    assert rows["mask/gn"]["operation"] == "-"


def test_settings_are_compared_with_the_block(experiment: Experiment, arms: Arms) -> None:
    rows = rows_of(group_table(experiment, SETTINGS, arms))
    assert rows["+1 NL in res4"]["far: box AP"] == "73.0 ± 3.0"
    assert rows["GN after W_z"]["far: box AP"] == "71.0 (+1.0)"


def test_what_is_not_trained(experiment: Experiment, arms: Arms) -> None:
    """It has its row."""
    rows = rows_of(group_table(experiment, PLACES, arms))
    assert list(rows) == [arm.name for arm in PLACES]
    assert rows["+1 NL in res3"] == dict.fromkeys(rows["+1 NL in res3"], "") | {"seeds": "not trained"}


def test_an_arm_without_reference_has_no_differences(experiment: Experiment, arms: Arms) -> None:
    rows = rows_of(group_table(experiment, KEYPOINT, arms))
    assert rows["baseline"]["seeds"] == "not trained"
    assert rows["+4 NL in head"]["far: keypoint AP"] == "20.0"
    assert rows["+4 NL in head"]["near: box AP"] == "51.0"


def test_from_when_on_it_is_learnt(train: Train) -> None:
    """Evaluations after 20, 40 and 60 steps are written under 19, 39 and 59; one below 90 undoes what was."""
    run = train("mask/nl_res4/seed_1", bbox=(70.0, 0.0))
    key = "shapes_far_val/bbox/AP50"

    def after(*values: float) -> str:
        run.history.clear()
        for step, value in zip((19, 39, 59, 100), values, strict=True):
            run.history[step] = {"iteration": step, key: value}
        return learnt_after(run, "bbox/AP50")

    assert after(50, 91, 92, 93) == "40"
    assert after(50, 91, 60, 93) == "100"
    assert after(50, 91, 60, float("nan")) == "-"
    assert after(91, 91, 91, 91) == "20"


def test_attention() -> None:
    """Means over the figures with a red and with a blue disc, for each seed."""
    weights = {
        1: [(True, 0.5, 0.2, 0.1), (True, 0.7, 0.2, 0.1), (False, 1.0, 0.4, 0.2)],
        2: [(True, 0.8, 0.4, 0.1), (False, 0.9, 0.4, 0.1)],
    }
    block = "res4.non_local_5"
    main = {
        seed: (None, Evaluation([], [], {block: figures}, {block: [0.25, 0.75]}))
        for seed, figures in weights.items()
    }
    table = attention_table({ARM["mask/baseline"]: {1: (None, Evaluation())}, ARM["mask/nl_res4"]: main})
    expected = {"arm": "+1 NL in res4", "block": block, "seeds": "1, 2"}
    expected |= {"on a red disc, %": "60, 80", "red: from everywhere": "20, 40"}
    expected |= {"on a blue disc, %": "100, 90", "blue: from everywhere": "40, 40"}
    assert rows_of(table) == {
        "mask": expected | {"if all were alike": "13, 10", "query dependence": "0.50, 0.50"}
    }


@pytest.mark.slow
def test_what_an_arm_costs(experiment: Experiment) -> None:
    """The block has 4 C d + 2 C = 4 * 256 * 128 + 256 * 2 weights and norms, of which three have biases."""
    one, other = (count(experiment, arm) for arm in MAIN_PAIR)
    assert other.parameters - one.parameters == 4 * 256 * 128 + 3 * 128 + 2 * 256
    assert other.multiply_adds > one.multiply_adds > 1e9


def test_summary(experiment: Experiment, arms: Arms) -> None:
    assert report.summary(experiment, read_runs(experiment)) == (
        f"7 of the {len(trainings())} trainings of the matrix are finished, each with 12 far and 12 near "
        "pictures. All have SOLVER.MAX_ITER 100. One took 0:17:00 (the median of the 7 that were not killed)."
    )
