"""The command nl-detectron, and how soon its programs and the scripts answer."""

import pickle
import subprocess
import sys
from argparse import Action, ArgumentParser
from pathlib import Path
from unittest.mock import Mock

import pytest
from detectron2.engine import default_argument_parser
from runs import MASK, ROOT

from nl_detectron_cli import train_net
from nl_detectron_cli.arguments import TOOLS, detectron2_parser
from nl_detectron_cli.command import COMMANDS, main

SCRIPTS = ["train_net.py", *(f"tools/{name}.py" for name in (*TOOLS, "visualize_attention"))]
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        from nl_detectron_cli.command import main
        main()
except SystemExit as stopped:
    print("exit code:", stopped.code)
print("imported:", sorted({"nl_detectron", "torch", "detectron2", "numpy"} & set(sys.modules)))
"""
REGISTER = """
import pickle, sys
from detectron2.data import DatasetCatalog
assert "shapes_train" not in DatasetCatalog
pickle.load(sys.stdin.buffer).keywords["register"]()
assert "shapes_train" in DatasetCatalog
"""


@pytest.mark.parametrize("program", [*SCRIPTS, *(f"nl-detectron {name}" for name in COMMANDS)])
@pytest.mark.parametrize(("flag", "code"), [("-h", 0), ("--no-such-flag", 2)])
def test_flags_are_read_before_anything_heavy_is_imported(program: str, flag: str, code: int) -> None:
    command = [sys.executable, "-c", RUN, *program.split(), flag]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-2:] == [f"exit code: {code}", "imported: []"]
    assert f"usage: {program.removeprefix('tools/')} [-h]" in result.stdout + result.stderr


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_the_commands_are_listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main(words)
    printed = capsys.readouterr().out
    for name, (_, _, text) in COMMANDS.items():
        assert f"\n  {name} " in printed
        assert f" {text}\n" in printed


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("trian", "Did you mean train?"),
        ("evaluate", "Did you mean eval?"),
        ("--config-file", "There are train, eval, demo, attention, export, analyze, results."),
    ],
)
def test_an_unknown_command(word: str, remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main([word])
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"nl-detectron: error: {word!r} is not a command. {remedy}"


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_are_shown_as_commands(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)  # the command sets it
    with pytest.raises(SystemExit, match="^0$"):
        main([command, "--help"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: nl-detectron {command} ")
    assert f" nl-detectron {command} --" in printed
    assert "train_net.py" not in printed
    assert "tools/" not in printed


def flags_of(parser: ArgumentParser) -> dict[str, tuple[object, ...]]:
    def facts(action: Action) -> tuple[object, ...]:
        return type(action), action.dest, action.type, action.nargs, action.const, action.default

    return {", ".join(action.option_strings) or action.dest: facts(action) for action in parser._actions}


def test_the_flags_are_those_of_the_installed_detectron2() -> None:
    assert flags_of(detectron2_parser("")) == flags_of(default_argument_parser())


def test_eval_is_train_net_with_eval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Mock()
    monkeypatch.setattr("nl_detectron.engine.train_or_evaluate", run)
    monkeypatch.setattr(sys, "argv", sys.argv)
    main(["eval", "--config-file", MASK, "SEED", "1"])
    (args, register), _ = run.call_args
    assert (args.eval_only, args.config_file, args.opts) == (True, MASK, ["SEED", "1"])
    assert register is train_net.register_shapes


@pytest.mark.slow
def test_each_process_registers_the_shapes(
    monkeypatch: pytest.MonkeyPatch, shapes_root: Path, tmp_path: Path
) -> None:
    """Detectron2's launcher pickles what its new processes run."""
    launch = Mock()
    monkeypatch.setattr("nl_detectron.engine.distributed.launch", launch)
    monkeypatch.setattr(sys, "argv", sys.argv)
    main(["train", "--config-file", MASK, "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "run")])
    content = pickle.dumps(launch.call_args.args[0])
    subprocess.run([sys.executable, "-W", "ignore", "-c", REGISTER], input=content, cwd=ROOT, check=True)
