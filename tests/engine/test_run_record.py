"""run.json: what a training records of itself, and what tools read from it."""

import json
import subprocess
from pathlib import Path

import pytest
from detectron2.config import CfgNode
from runs import ROOT

import nl_detectron
from nl_detectron.engine import read_run
from nl_detectron.engine.run_record import RunRecord, describe_code, is_evaluated
from nl_detectron.errors import UserError


def test_a_finished_training(trained: Path) -> None:
    run = read_run(trained)
    assert (run.folder, run.processes, run.finished) == (trained, 1, True)
    assert run.images == {"shapes_train": 12, "shapes_val": 6}
    assert (run.cfg.SEED, run.cfg.SOLVER.MAX_ITER) == (1, 3)
    assert run.code == (describe_code(),)
    assert run.seconds >= 0
    assert {"bbox/AP", "segm/AP"} <= run.history[3].keys()
    assert any("total_loss" in metrics for metrics in run.history.values())
    record = json.loads((trained / "run.json").read_text())
    assert record["seed"] == 1
    assert set(record["versions"]) == {"nl_detectron", "detectron2", "torch", "python"}


@pytest.fixture
def folder(small_cfg: CfgNode) -> Path:
    """With the metrics of an earlier training, which had another key."""
    path = Path(small_cfg.OUTPUT_DIR)
    (path / "metrics.json").write_text('{"iteration": 1, "c": 1}\n')
    return path


def test_a_resumed_training_adds_a_command(folder: Path, small_cfg: CfgNode) -> None:
    record = RunRecord(small_cfg, 1, {})
    record.start(0, [])
    with (folder / "metrics.json").open("a") as metrics:
        metrics.write('{"iteration": 1, "a": 1}\n{"iteration": 1, "a": 2, "b": 3}\n')
        metrics.write(
            '{"iteration": 2, "a{"iteration": 3, "a": 1}\n'
        )  # cut off, and gone on in the same line
    assert read_run(folder).seconds is None  # killed, as far as anyone knows
    record.stop(finished=False)
    assert not read_run(folder).finished
    resumed = RunRecord(small_cfg, 1, {})
    resumed.start(2, [])
    resumed.stop(finished=True)
    run = read_run(folder)
    assert (run.finished, run.seconds) == (True, 0)
    assert [c["start"] for c in json.loads((folder / "run.json").read_text())["commands"]] == [0, 2]
    assert run.history == {1: {"iteration": 1, "a": 2, "b": 3}}  # its own; what was written last counts
    again = RunRecord(small_cfg, 1, {})
    again.start(0, [])  # from the beginning
    assert len(json.loads((folder / "run.json").read_text())["commands"]) == 1


def test_a_resume_of_a_training_without_a_record_has_all_its_metrics(
    folder: Path, small_cfg: CfgNode
) -> None:
    RunRecord(small_cfg, 1, {}).start(2, [])
    assert read_run(folder).history == {1: {"iteration": 1, "c": 1}}


def test_what_is_no_record_of_one_training(folder: Path, small_cfg: CfgNode) -> None:
    with pytest.raises(UserError, match="is not an output folder of train_net.py: it has no run.json"):
        read_run(folder)
    record = RunRecord(small_cfg, 1, {})
    record.start(2, ["SEED was 1 and is 2"])
    with pytest.raises(UserError, match="was resumed with other settings: SEED was 1 and is 2"):
        read_run(folder)
    for damaged in ("{", "{}", '{"commands": []}'):
        (folder / "run.json").write_text(damaged)
        with pytest.raises(UserError, match=f"The record of {folder} is damaged"):
            read_run(folder)


def test_the_code_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    revision = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    assert describe_code() == (revision or f"nl_detectron {nl_detectron.__version__}")

    # Installed below a repository of the user's, which is not its own
    installed = tmp_path / "site-packages" / "nl_detectron" / "__init__.py"
    installed.parent.mkdir(parents=True)
    installed.touch()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(nl_detectron, "__file__", str(installed))
    assert describe_code() == f"nl_detectron {nl_detectron.__version__}"


def test_which_evaluations_the_metrics_have(tmp_path: Path) -> None:
    """Also when the last line was cut off, as by a kill, and when the next command goes on in it."""
    assert not is_evaluated(tmp_path, 9)
    lines = [
        '{"iteration": 9, "bbox/AP": 1.0}',
        '{"iteration": 19, "total_loss": 1.0}',
        '{"iteration": 29, "bb',
    ]
    (tmp_path / "metrics.json").write_text("\n".join(lines))
    assert [is_evaluated(tmp_path, k) for k in (8, 9, 10, 19, 29)] == [True, True, False, False, False]
    with (tmp_path / "metrics.json").open("a") as file:
        file.write('{"iteration": 29, "bbox/AP": 1.0}\n{"iteration": 39, "bbox/AP": 2.0}\n')
    assert [is_evaluated(tmp_path, k) for k in (29, 39)] == [False, True]
