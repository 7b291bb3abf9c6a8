"""What is read of an output folder, and which folders are refused."""

from pathlib import Path

import pytest
from made_up_runs import END, EVALUATION, MASK, MASK_NL, START, WHOLE, finished, write_log, write_metrics

from nl_detectron.errors import UserError
from nl_detectron.results import read_run

BOXES = {"bbox": (30.0, 50.0, 20.0)}


def test_the_last_evaluation_counts_not_the_best(tmp_path: Path) -> None:
    write_log(tmp_path, MASK_NL, "SEED", "7", time="1 day, 2:03:04")
    write_metrics(tmp_path, 99, loss=0.5)
    write_metrics(tmp_path, 49, bbox=(35.0, 55.0, 25.0), segm=(34.0, 54.0, 24.0))
    write_metrics(tmp_path, 100, bbox=(30.0, 50.0, 20.0), segm=(29.0, 49.0, 19.0))
    run = read_run(tmp_path)
    assert run.scores == {
        "bbox/AP": 30.0, "bbox/AP50": 50.0, "bbox/AP75": 20.0,
        "segm/AP": 29.0, "segm/AP50": 49.0, "segm/AP75": 19.0,
    }  # fmt: skip
    assert run.cfg.SEED == 7
    assert run.cfg.MODEL.BACKBONE.NAME == "build_nl_resnet_fpn_backbone"
    assert run.seconds == 26 * 3600 + 3 * 60 + 4
    assert (run.images, run.processes, run.code) == ((6, 12), 1, {"abc"})
    assert run.history[99]["total_loss"] == 0.5


def test_a_training_that_was_resumed(tmp_path: Path) -> None:
    """All commands since iteration 0 had a part in it; what was written twice is the later one's."""
    write_log(tmp_path, code="git revision of-another-training")
    write_log(tmp_path, events=START, code="git revision abc")  # killed
    write_metrics(tmp_path, 39, loss=2.0)
    write_metrics(tmp_path, 59, loss=1.5)
    run = finished(tmp_path, scores=BOXES, start=40, code="not a git checkout")
    assert run.code == {"abc", "nl_detectron 0.1.0"}
    assert run.seconds is None
    write_metrics(tmp_path, 59, loss=1.25)
    assert read_run(tmp_path).history[59]["total_loss"] == 1.25


def test_a_training_by_a_script_of_detectron2s(tmp_path: Path) -> None:
    finished(tmp_path, scores=BOXES)
    log = tmp_path / "log.txt"
    log.write_text("".join(line for line in log.open() if "launcher" not in line))
    assert read_run(tmp_path).code == {"unknown"}


def test_an_evaluation_after_it_is_no_part_of_it(tmp_path: Path) -> None:
    finished(tmp_path, scores=BOXES)
    write_log(tmp_path, MASK, "SEED", "99", events=EVALUATION, images=(1, 2), code="git revision later")
    run = read_run(tmp_path)
    assert (run.cfg.SEED, run.images, run.code) == (1, (6, 12), {"abc"})


def test_the_next_training_of_the_same_process(tmp_path: Path) -> None:
    """Detectron2 writes it into the first one's log too."""
    first, second = tmp_path / "first", tmp_path / "second"
    finished(first, scores=BOXES)
    finished(second, MASK, "SEED", "2", scores=BOXES)
    with (first / "log.txt").open("a") as log:
        log.write((second / "log.txt").read_text())
    assert read_run(first).cfg.SEED == 1
    assert read_run(second).cfg.SEED == 2


def test_the_schedule_is_that_of_the_processes_there_were(tmp_path: Path) -> None:
    write_log(tmp_path, MASK, "SOLVER.REFERENCE_WORLD_SIZE", "4", processes=2)
    write_metrics(tmp_path, 200, **BOXES)
    solver = read_run(tmp_path).cfg.SOLVER
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (200, 2, 0.01)


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_run(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(str(folder), "RUN")


def test_what_is_no_output_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == "RUN must be an output folder of train_net.py; it has no log.txt."
    write_log(tmp_path, events=EVALUATION)
    assert refusal(tmp_path) == "RUN must be an output folder of train_net.py; it has no metrics.json."
    write_metrics(tmp_path, 100, **BOXES)
    assert refusal(tmp_path) == "RUN/log.txt must be of a training, and has none."


@pytest.mark.parametrize(
    "line",
    [
        '{"iteration": 5, "bbox/AP": 3',
        '{"iteration": 5, "bbox/AP": null}',
        '{"iteration": 5, "total_loss": "low"}',
        '{"iteration": null}',
        '{"iteration": [5]}',
        *("[1]", "{}", "3", "\0"),
    ],
)
def test_damaged_metrics(line: str, tmp_path: Path) -> None:
    finished(tmp_path, scores=BOXES)
    metrics = tmp_path / "metrics.json"
    metrics.write_text(metrics.read_text() + line + "\n")
    assert (
        refusal(tmp_path)
        == "RUN/metrics.json: line 3 must be numbers in JSON, with an iteration; it is damaged."
    )


def test_a_damaged_log(tmp_path: Path) -> None:
    finished(tmp_path, scores=BOXES)
    log = tmp_path / "log.txt"
    whole = log.read_text()
    log.write_text(whole.replace("Running with full config", "Running"))
    assert refusal(tmp_path) == "RUN/log.txt must have the config of the training; it is damaged."
    log.write_text(whole.replace("World size: 1", "World size: one"))
    assert refusal(tmp_path) == (
        "RUN/log.txt must have a number after 'World size: '; got 'one'. It is damaged."
    )
    log.write_text(whole.replace("MAX_ITER", "NO_KEY"))
    assert refusal(tmp_path) == (
        "RUN: this Detectron2 cannot read the config in log.txt: KeyError: "
        "Non-existent config key: SOLVER.NO_KEY"
    )


def test_a_training_that_was_resumed_as_another(tmp_path: Path) -> None:
    """The line is that of engine/trainer.py."""
    write_log(tmp_path, events=START)
    warning = "This does not resume the same training: SOLVER.BASE_LR was 0.02 and is 0.01\n"
    write_log(tmp_path, events=warning + WHOLE, start=40)
    write_metrics(tmp_path, 100, **BOXES)
    assert refusal(tmp_path) == (
        "RUN must be one training; it was resumed as another: SOLVER.BASE_LR was 0.02 and is 0.01."
    )


UNFINISHED = (
    "RUN must be trained to SOLVER.MAX_ITER 100 and evaluated there; the last iteration in metrics.json "
    "is {}. Continue it with train_net.py --resume."
)


def test_a_training_that_was_killed(tmp_path: Path) -> None:
    write_log(tmp_path, events=START + EVALUATION)
    (tmp_path / "metrics.json").touch()
    assert refusal(tmp_path) == UNFINISHED.format("none")
    write_metrics(tmp_path, 59, **BOXES)
    assert refusal(tmp_path) == UNFINISHED.format(59)


def test_a_training_that_was_interrupted_or_not_evaluated(tmp_path: Path) -> None:
    write_log(tmp_path, events=START + EVALUATION + END)
    write_metrics(tmp_path, 79, **BOXES)
    assert refusal(tmp_path) == UNFINISHED.format(79)
    write_metrics(tmp_path, 99)
    assert refusal(tmp_path) == UNFINISHED.format(99)


def test_an_unfinished_training_in_the_folder_of_a_finished_one(tmp_path: Path) -> None:
    finished(tmp_path, scores=BOXES)
    write_log(tmp_path, events=START + EVALUATION)
    assert refusal(tmp_path) == UNFINISHED.format(100)


def test_several_test_sets(tmp_path: Path) -> None:
    """The scores go by the names of the sets."""
    scores = {"shapes_val/bbox": (1.0, 2.0, 3.0), "shapes_train/bbox": (4.0, 5.0, 6.0)}
    run = finished(tmp_path, MASK, "DATASETS.TEST", "('shapes_val', 'shapes_train')", scores=scores)
    assert run.scores == {
        "shapes_val/bbox/AP": 1.0, "shapes_val/bbox/AP50": 2.0, "shapes_val/bbox/AP75": 3.0,
        "shapes_train/bbox/AP": 4.0, "shapes_train/bbox/AP50": 5.0, "shapes_train/bbox/AP75": 6.0,
    }  # fmt: skip
