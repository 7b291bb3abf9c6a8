"""Running trainings: order, several at a time, failures and interruption. Programs stand in for trainings."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent

import pytest
from far_context import runs
from far_context.folder import Experiment, set_up
from far_context.matrix import PROJECT, Training, trainings, with_starts
from made_up_trainings import make_up

from nl_detectron.errors import UserError

pytestmark = pytest.mark.slow  # programs are started

PAIR = ["mask/baseline", "mask/nl_res4"]
AP = {"bbox": (30.0, 50.0)}
# Notes its arguments and when it began and ended, and copies the finished training into OUTPUT_DIR.
STAND_IN = """
import json, os, shutil, signal, sys, time
from pathlib import Path
note = Path({notes!r}) / f"{{time.monotonic_ns()}}.json"
output = Path(sys.argv[sys.argv.index("OUTPUT_DIR") + 1])
others = output.parents[1]
{behaviour}
shutil.copytree(Path({finished!r}) / output.relative_to({output!r}), output, dirs_exist_ok=True)
variables = {{key: os.environ[key] for key in ("DETECTRON2_DATASETS", "OMP_NUM_THREADS")}}
note.write_text(json.dumps([sys.argv[1:], variables, time.monotonic_ns()]))
"""
BEGINS_AND_WAITS = """
def end(number, _):
    (output / "ended").write_text((output / "ended").read_text() + str(number) + " ")
    sys.exit(1)
(output / "ended").write_text("")
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
(output / "begun").touch()
time.sleep(60)
"""
TOOL = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
sys.path.insert(0, {project!r})
from far_context import runs
from far_context.folder import Experiment
from far_context.matrix import trainings
runs.TRAIN_NET = Path({script!r})
with open({lock!r}, "w") as lock:
    runs.run_all(Experiment(Path({output!r}), 2, 2), trainings(["mask/baseline"], [1]), 1, lock)
"""


class StandIn:
    """Runs trainings with another program in the place of train_net.py."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.output, self.notes, self.done = (folder / name for name in ("out", "notes", "done"))
        self.script = folder / "stand_in.py"
        self.experiment = Experiment(self.output, 12, 6, ("SOLVER.MAX_ITER", "100"))
        for each in (self.output, self.notes):
            each.mkdir()
        monkeypatch.setattr(runs, "TRAIN_NET", self.script)

    def write(self, asked: Sequence[Training], behaviour: str = "") -> None:
        """The program, with lines of its own in the middle, and what it leaves."""
        for training in asked:
            place = f"{training.arm.path}/seed_{training.seed}"
            folder = self.done / place
            if not folder.exists():
                make_up(self.experiment, place, folder=folder, **(AP if training.arm.task == "mask" else {}))
                (folder / "model_0000099.pth").touch()
        paths = {"notes": str(self.notes), "finished": str(self.done), "output": str(self.output)}
        self.script.write_text(STAND_IN.format(behaviour=dedent(behaviour), **paths))

    def run(self, asked: Sequence[Training], jobs: int = 1, behaviour: str = "") -> None:
        self.write(asked, behaviour)
        with (self.output / "lock").open("w") as lock:
            runs.run_all(self.experiment, asked, jobs, lock)

    def calls(self) -> list[tuple[int, int, list[str], dict[str, str]]]:
        """Begin, end, arguments and variables of each."""
        read = [(int(path.stem), json.loads(path.read_text())) for path in sorted(self.notes.iterdir())]
        return [(begin, end, argv, variables) for begin, (argv, variables, end) in read]


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    monkeypatch.setattr(runs, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(runs, "FILE_SECONDS", 0.1)
    return StandIn(tmp_path, monkeypatch)


def test_one_after_the_other(stand_in: StandIn) -> None:
    stand_in.run(trainings(["mask/nl_res?"], [2]))
    first, second = stand_in.calls()
    assert first[1] < second[0]
    flag, config, resume, *keys = second[2]
    assert (flag, Path(config).name, resume) == (
        "--config-file",
        "mask_rcnn_R_50_FPN_nl_far.yaml",
        "--resume",
    )
    folder = stand_in.output / "mask" / "nl_res3" / "seed_2"
    arm = ["MODEL.NON_LOCAL.RES3", "[-1]", "MODEL.NON_LOCAL.RES4", "[]"]
    assert keys == [*arm, "SOLVER.MAX_ITER", "100", "SEED", "2", "OUTPUT_DIR", str(folder)]
    assert second[3] == {"DETECTRON2_DATASETS": str(stand_in.output / "datasets"), "OMP_NUM_THREADS": "8"}


def test_several_at_a_time(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    """They share the cores, and the next one begins when one ends."""
    stand_in.run(trainings(["mask/baseline"]), 2, "time.sleep(1)")
    (_, end, *_), (begin, *_), (last, *_, variables) = stand_in.calls()
    assert begin < end < last
    assert variables["OMP_NUM_THREADS"] == "4"
    bar = capsys.readouterr().err
    assert "300/300" in bar
    assert "mask/baseline with SEED 1, mask/baseline with SEED 2" in bar


def test_fewer_than_jobs_share_all_cores(stand_in: StandIn) -> None:
    stand_in.run(trainings(["mask/baseline"], [1, 2]), 8)
    assert [variables["OMP_NUM_THREADS"] for *_, variables in stand_in.calls()] == ["4", "4"]


def test_what_is_finished_is_not_run_again(stand_in: StandIn) -> None:
    """Of its checkpoints the last one is kept; an interrupted one keeps all, and is run again."""
    asked = trainings(PAIR, [1])
    for _ in range(2):
        stand_in.run(asked)
    assert len(stand_in.calls()) == 2
    folder = stand_in.experiment.folder(asked[0])
    assert [path.name for path in folder.glob("*.pth")] == ["model_final.pth"]
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | {"finished": False}))
    stand_in.run(asked)
    assert len(stand_in.calls()) == 3


def test_one_that_fails_does_not_stop_the_others(
    stand_in: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are finished, and then the failed one is named, with its last words."""
    asked = trainings(PAIR, [1, 2])
    behaviour = """
    if output == others / "baseline" / "seed_1":
        print("first words")
        sys.exit("error: the loss is nan")
    if output == others / "nl_res4" / "seed_1":
        sys.exit(0)
    """
    names = "mask/baseline with SEED 1, mask/nl_res4 with SEED 1"
    with pytest.raises(UserError, match=rf"^2 of 4 trainings have failed: {names}\.$"):
        stand_in.run(asked, 2, behaviour)
    said = capsys.readouterr().out
    folders = [stand_in.experiment.folder(each) for each in asked]
    failed = "mask/baseline with SEED 1 ended with exit code 1: error: the loss is nan"
    assert f"{failed} ({folders[0]}/console.log)" in said
    assert f"{folders[1]} is not an output folder of train_net.py" in said
    assert [bool(stand_in.experiment.finished(training)) for training in asked] == [False, False, True, True]


def test_weights_to_start_from(stand_in: StandIn) -> None:
    """A training waits for those, with its seed, and others go before it."""
    asked = with_starts([*trainings(["keypoint/nl_head"], [1]), *trainings(["mask/gn"], [1])])
    assert [each.arm.path for each in asked] == ["mask/baseline", "keypoint/nl_head", "mask/gn"]
    stand_in.run(asked, 2, "time.sleep(1)")
    calls = {Path(argv[-1]).parent.name: (begin, end, argv) for begin, end, argv, _ in stand_in.calls()}
    assert calls["gn"][0] < calls["baseline"][1] < calls["nl_head"][0]
    weights = calls["nl_head"][2].index("MODEL.WEIGHTS") + 1
    assert calls["nl_head"][2][weights] == str(stand_in.output / "mask/baseline/seed_1/model_final.pth")
    assert "MODEL.WEIGHTS" not in calls["gn"][2]


def test_without_the_weights_to_start_from(stand_in: StandIn) -> None:
    """A training whose weights have failed is named as failed too, and the others are finished."""
    asked = with_starts(trainings(["keypoint/nl_head"], [1, 2]))
    behaviour = 'if output == others / "baseline" / "seed_1": sys.exit("error: the loss is nan")'
    with pytest.raises(
        UserError, match=r"^2 of 4 trainings have failed: .*/baseline .* 1, .*/nl_head .* 1\.$"
    ):
        stand_in.run(asked, 2, behaviour)
    assert [bool(stand_in.experiment.finished(training)) for training in asked] == [False, False, True, True]


def test_the_bar_begins_where_they_are(stand_in: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    asked = trainings(["mask/baseline"], [1])
    folder = stand_in.experiment.folder(asked[0])
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text('{"iteration": 39}\n')
    stand_in.run(asked)
    first, *_, last = capsys.readouterr().err.strip().split("\r")
    assert "39/100" in first
    assert "100/100" in last


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)],
    ids=lambda number: number.name,
)
def test_an_interrupted_tool_leaves_nothing_running(number: signal.Signals, tmp_path: Path) -> None:
    """A signal to all processes of the terminal reaches a training once, as SIGTERM, upon which it writes a
    checkpoint; and so does the end of a tool that is killed."""
    output, script, tool = tmp_path / "out", tmp_path / "stand_in.py", tmp_path / "tool.py"
    values = {"notes": str(tmp_path), "finished": str(tmp_path), "output": str(output)}
    script.write_text(STAND_IN.format(behaviour=BEGINS_AND_WAITS, **values))
    values = {"project": str(PROJECT), "script": str(script), "lock": str(tmp_path / "lock")}
    tool.write_text(TOOL.format(output=str(output), **values))
    process = subprocess.Popen([sys.executable, "-W", "ignore", str(tool)], start_new_session=True)
    folder = output / "mask" / "baseline" / "seed_1"
    wait_for(lambda: (folder / "begun").exists())
    os.killpg(process.pid, number)
    process.wait(30)
    wait_for(lambda: (folder / "ended").read_text())
    assert (folder / "ended").read_text() == "15 "


def wait_for(condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_lock_outlives_the_tool(stand_in: StandIn) -> None:
    """While a training runs, nobody else starts another one."""
    asked = trainings(["mask/baseline"], [1])
    stand_in.write(asked, BEGINS_AND_WAITS)
    experiment = Experiment(stand_in.output, 2, 2)
    with set_up(experiment) as lock:
        process = runs._start(experiment, asked[0], 1, lock)
    try:
        with pytest.raises(UserError, match="trainings are running in it"):
            set_up(experiment)
    finally:
        process.kill()
        process.wait()
    set_up(experiment).close()
