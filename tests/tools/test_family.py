"""What all programs of the project have in common."""

import re
import runpy
import sys
from collections.abc import Callable

import pytest
from runs import MASK, ROOT

TOOLS = sorted(path.stem for path in (ROOT / "tools").glob("*.py"))
OF_A_MODEL = {  # and the flags that they require
    "analyze": "",
    "check_identity": "",
    "demo": "--input a.jpg --output somewhere",
    "export": "--format onnx-block --output somewhere",
    "visualize_attention": "--input a.jpg --output somewhere",
}
SAME_HELP = {
    "--config-file FILE": "a config, or the name of a shipped one",
    "--allow-mismatch": "accept weights that lack tensors of the",  # model, or baseline
    "--confidence-threshold SCORE": "the lowest score that is shown",
}
Run = Callable[..., object]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a program in this process; what it exits with."""

    def run_tool(name: str, *words: str) -> object:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / "tools" / f"{name}.py"), run_name="__main__")
        return stopped.value.code

    return run_tool


@pytest.mark.parametrize("name", TOOLS)
def test_help_has_an_example(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """And a flag has one meaning in all tools of a model; an unknown one is refused."""
    assert run(name, "--help") == 0
    text = capsys.readouterr().out
    assert re.search(rf"^    python3? tools/{name}.py \S", text, re.MULTILINE)
    if name in OF_A_MODEL:
        _, _, options = " ".join(text.split()).rpartition("options:")
        assert " --config-file FILE " in options
        for flag, meaning in SAME_HELP.items():
            assert options.count(f" {flag} ") == options.count(f" {flag} {meaning}")
    assert run(name, "--no-such-flag") == 2


@pytest.mark.parametrize("name", OF_A_MODEL)
def test_bad_keys_and_configs(name: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of the config go last. An --output is empty if a variable of the shell is not set."""
    flags = OF_A_MODEL[name].split()
    error = run(name, "--config-file", MASK, *flags, "MODEL.NON_LOCAL.REDUKTION", "1")
    assert error.startswith("error: ")
    assert "'MODEL.NON_LOCAL.REDUKTION' is not a key" in error
    assert "\n" not in error
    error = run(name, "--config-file", "no.yaml", *flags)
    assert error.startswith("error: --config-file 'no.yaml' is neither a file nor a shipped config.")
    if "--output" in flags:
        assert run(name, *flags, "--output", "") == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.endswith("argument --output: the path is empty. Is a shell variable unset?")
