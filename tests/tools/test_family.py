"""What all programs of the project have in common."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from runs import ROOT

TOOLS = sorted((ROOT / "tools").glob("*.py"))
NAMES = ("analyze", "check_identity", "demo", "export", "visualize_attention")
OF_A_MODEL = [ROOT / "tools" / f"{name}.py" for name in NAMES]
SAME_HELP = {
    "--config-file FILE": "a config, or the name of a shipped one",
    "--allow-mismatch": "accept weights that lack tensors of the",  # model, or baseline
    "--confidence-threshold SCORE": "the lowest score that is shown",
}


def run(tool: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run a program in this process; what it exits with."""
    monkeypatch.setattr(sys, "argv", [str(tool), *arguments])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(tool), run_name="__main__")
    return stopped.value.code


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_help_has_an_example(
    tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, monkeypatch, "--help") == 0
    assert re.search(rf"^    python3? tools/{tool.name} \S", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize(("flag", "meaning"), SAME_HELP.items(), ids=SAME_HELP)
def test_a_flag_has_one_meaning(
    flag: str, meaning: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In all tools that have it."""
    having = 0
    for tool in OF_A_MODEL:
        assert run(tool, monkeypatch, "--help") == 0
        _, _, options = " ".join(capsys.readouterr().out.split()).rpartition("options:")
        if f" {flag} " in options:
            having += 1
            assert f" {flag} {meaning}" in options, tool.name
    assert having > 1


@pytest.mark.parametrize("name", ["demo", "export", "visualize_attention"])
def test_an_empty_output(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a variable of the shell that is not set; Path would make the current folder of it."""
    assert run(ROOT / "tools" / f"{name}.py", monkeypatch, "--output", "") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("argument --output: the path is empty. Is a shell variable unset?")


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_an_unknown_flag(
    tool: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tool, monkeypatch, "--no-such-flag") == 2
    assert "usage: " in capsys.readouterr().err


@pytest.mark.parametrize("keys", [["KEY", "1"], ["--opts", "KEY", "1"]], ids=["bare", "opts"])
@pytest.mark.parametrize("tool", OF_A_MODEL, ids=lambda tool: tool.name)
def test_keys_of_the_config_go_last(tool: Path, keys: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
    others = {"demo": ["--input", "a.jpg"], "export": ["--format", "onnx-block"]}
    others["visualize_attention"] = others["demo"]
    output = [] if tool.stem in ("analyze", "check_identity") else ["--output", "somewhere"]
    flags = ["--config-file", config, *others.get(tool.stem, []), *output]
    keys = ["MODEL.NON_LOCAL.REDUKTION" if key == "KEY" else key for key in keys]
    error = run(tool, monkeypatch, *flags, *keys)
    assert error.startswith("error: ")
    assert "'MODEL.NON_LOCAL.REDUKTION' is not a key" in error
    assert "\n" not in error


@pytest.mark.parametrize("tool", OF_A_MODEL, ids=lambda tool: tool.name)
def test_a_config_that_is_not_there(tool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--input", "a.jpg"] if tool.stem in ("demo", "visualize_attention") else []
    flags += ["--format", "onnx-block"] if tool.stem == "export" else []
    flags += [] if tool.stem in ("analyze", "check_identity") else ["--output", "somewhere"]
    said = run(tool, monkeypatch, "--config-file", "no.yaml", *flags)
    assert said.startswith("error: --config-file 'no.yaml' is neither a file nor a shipped config.")
