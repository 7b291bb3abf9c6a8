"""Running trainings: their order, several at a time, what is finished, and what fails. The trainings
themselves are stand-ins, which take no time."""

import json
import textwrap
from pathlib import Path

import pytest
from experimenting import runs
from experimenting.matrix import trainings
from made_up_runs import finished, write_metrics

from nl_detectron.errors import ArgumentError, UserError

SCORES = {f"shapes_{where}_val/bbox": (30.0, 50.0, 20.0) for where in ("far", "near")}
# Notes its arguments and when it began and ended, and copies a finished training into OUTPUT_DIR.
STAND_IN = """
import json, os, shutil, signal, sys, time
from pathlib import Path
note = Path({notes!r}) / f"{{time.monotonic_ns()}}.json"
output = Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
{behaviour}
shutil.copytree({finished!r}, output, dirs_exist_ok=True)
variables = {{key: os.environ[key] for key in ("DETECTRON2_DATASETS", "OMP_NUM_THREADS")}}
note.write_text(json.dumps([sys.argv[1:], variables, time.monotonic_ns()]))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """Makes train_net.py another program, with lines of its own in the middle."""
    notes = tmp_path / "notes"
    notes.mkdir()
    done = tmp_path / "done"
    finished(done, "quick_schedules/mask_rcnn_R_50_FPN_far.yaml", scores=SCORES)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    class StandIn:
        output = tmp_path / "out"

        @staticmethod
        def that(behaviour: str = "") -> None:
            script = tmp_path / "stand_in.py"
            values = {"notes": str(notes), "finished": str(done), "behaviour": textwrap.dedent(behaviour)}
            script.write_text(STAND_IN.format(**values))
            monkeypatch.setattr(runs, "TRAIN_NET", script)

        @staticmethod
        def calls() -> list[tuple[int, int, list[str], dict[str, str]]]:
            """Begin, end, arguments and variables of each."""
            read = [(int(path.stem), json.loads(path.read_text())) for path in sorted(notes.iterdir())]
            return [(begin, end, argv, variables) for begin, (argv, variables, end) in read]

    return StandIn


def test_one_after_the_other(stand_in: type, tmp_path: Path) -> None:
    stand_in.that()
    asked = trainings(["mask/nl_res?"], [2])
    runs.run_all(asked, stand_in.output, tmp_path / "data", 1, ["SOLVER.BASE_LR", "0.01"])
    first, second = stand_in.calls()
    assert first[1] < second[0]
    flag, config, resume, *keys = second[2]
    assert (flag, Path(config).name, resume) == (
        "--config-file",
        "mask_rcnn_R_50_FPN_nl_far.yaml",
        "--resume",
    )
    folder = stand_in.output / "mask" / "nl_res3" / "seed_2"
    assert keys == [
        "MODEL.NON_LOCAL.RES3", "[-1]", "MODEL.NON_LOCAL.RES4", "[]",
        "SOLVER.BASE_LR", "0.01", "SEED", "2", "OUTPUT_DIR", str(folder),
    ]  # fmt: skip
    assert second[3]["DETECTRON2_DATASETS"] == str(tmp_path / "data")
    assert all(runs.finished(training, stand_in.output) for training in asked)


def test_several_at_a_time(
    stand_in: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They share the cores, and the next one begins when one ends."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    stand_in.that("time.sleep(1.5)")
    asked = trainings(["mask/baseline"])
    runs.run_all(asked, stand_in.output, tmp_path, 2, [])
    (_, end, *_), (begin, *_), (last, *_, variables) = stand_in.calls()
    assert begin < end < last
    assert variables["OMP_NUM_THREADS"] == "4"
    bar = capsys.readouterr().err
    assert "3600/3600" in bar
    assert "mask/baseline/seed_1, mask/baseline/seed_2" in bar


def test_what_is_finished_is_not_run_again(stand_in: type, tmp_path: Path) -> None:
    stand_in.that()
    asked = trainings(["mask/baseline", "mask/nl_res4"], [1])
    for _ in range(2):
        runs.run_all(asked, stand_in.output, tmp_path, 1, [])
    assert len(stand_in.calls()) == 2
    (stand_in.output / asked[0].folder / "metrics.json").write_text("")  # as if it had been interrupted
    runs.run_all(asked, stand_in.output, tmp_path, 1, [])
    assert len(stand_in.calls()) == 3


def test_one_that_fails_ends_the_others(stand_in: type, tmp_path: Path) -> None:
    """Which get the signal upon which train_net.py writes a checkpoint; those that wait never begin."""
    stand_in.that(
        """
        def end(*_):
            (output / "ended").touch()
            sys.exit(1)
        signal.signal(signal.SIGTERM, end)
        (output / "begun").touch()
        if "nl_res4" in str(output):
            while not (output.parents[1] / "baseline" / "seed_1" / "begun").exists():
                time.sleep(0.1)
            print("first words")
            sys.exit("error: the disk is full")
        time.sleep(60)
        """
    )
    with pytest.raises(UserError) as refused:
        runs.run_all(trainings(["mask/baseline", "mask/nl_res4"], [1, 2]), stand_in.output, tmp_path, 2, [])
    folder = stand_in.output / "mask" / "nl_res4" / "seed_1"
    assert str(refused.value) == (
        f"{folder} must be trained to its end; it has ended with exit code 1: error: the disk is full"
    )
    assert (stand_in.output / "mask" / "baseline" / "seed_1" / "ended").exists()
    assert not (stand_in.output / "mask" / "baseline" / "seed_2").exists()


def test_one_that_ends_early_and_well(stand_in: type, tmp_path: Path) -> None:
    stand_in.that("sys.exit(0)")
    with pytest.raises(UserError, match="must be an output folder of train_net.py; it has no log.txt"):
        runs.run_all(trainings(["mask/baseline"], [1]), stand_in.output, tmp_path, 1, [])


def test_the_bar_begins_where_they_are(
    stand_in: type, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in.that("time.sleep(1.5)")
    (training,) = trainings(["mask/baseline"], [1])
    folder = stand_in.output / training.folder
    folder.mkdir(parents=True)
    write_metrics(folder, 299)
    runs.run_all([training], stand_in.output, tmp_path, 1, ["SOLVER.MAX_ITER", "600"])
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "299/600" in first
    assert "600/600" in last


def test_metrics_that_are_being_written(tmp_path: Path) -> None:
    assert runs._step(tmp_path) == 0
    (tmp_path / "metrics.json").write_text('{"iteration": 3')
    assert runs._step(tmp_path) == 0


def test_keys_are_those_of_the_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for _ in range(2):
        runs.keep_keys(output, ["SOLVER.MAX_ITER", "3"])
    with pytest.raises(
        ArgumentError, match=r"^--output must be a folder .* keys of the config, \[\]; got .*3"
    ):
        runs.keep_keys(output, [])


def test_ctrl_c_reaches_them_once(stand_in: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.that(
        """
        def end(number, _):
            (output / "ended").write_text((output / "ended").read_text() + str(number) + " ")
            sys.exit(1)
        (output / "ended").write_text("")
        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        (output / "begun").touch()
        time.sleep(60)
        """
    )
    (training,) = trainings(["mask/baseline"], [1])
    folder = stand_in.output / training.folder

    def interrupt(_: float) -> None:
        if (folder / "begun").exists():
            raise KeyboardInterrupt

    monkeypatch.setattr(runs.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        runs.run_all([training], stand_in.output, tmp_path, 1, [])
    assert (folder / "ended").read_text() == "15 "
