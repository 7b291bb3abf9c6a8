"""tools/gpu.py: its steps, and the page of what they found."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch
from benchmarking import gpu_page
from gpu import Step
from runs import refusal


def operation(ours: float, usual: float, **others: object) -> dict[str, object]:
    ways = {"usual": {"ms": usual, "MB": 2.0}, "matrix": {"ms": ours, "MB": 1.0, "launches": 3}, "fused": {}}
    names = {"positions": "res4", "function": "gaussian", "precision": "TF32", "pass": "forward"}
    return {**names, "chosen": "matrix", "ways": ways, **others}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What all steps give where every bar is met."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    weights = {"seed": 1, "trained in": "float32", "AP": {"bbox": 50.0, "segm": 40.0}}
    evaluated = {**weights, "evaluated in": "bfloat16", "device": "cuda", "AP": {"bbox": 50.5, "segm": 39.5}}
    return {
        "steps": [{"name": "tests", "outcome": "passed", "seconds": 3.0}],
        "tests": "7 passed",
        "operation": [operation(1.05, 1.0), operation(2.0, 2.0, **{"pass": "forward+backward"})],
        "models": [
            {"model": "R_50", "precision": "float32"}
            | {name: {"ms": ms, "MB": 9.0} for name, ms in (("+1 NL", 100.0), ("baseline", 96.1))}
        ],
        "shapes": [evaluated, weights],
    }


def not_met(found: dict[str, object]) -> list[str]:
    text, is_met = gpu_page.page(found)
    bars = [line for line in text.splitlines() if line.startswith(("- met", "- NOT met"))]
    assert is_met == all(line.startswith("- met") for line in bars)
    return [line for line in bars if line.startswith("- NOT met")]


def test_page(found: dict[str, object]) -> None:
    assert not_met(found) == []
    text, _ = gpu_page.page(found)
    assert "a card, " in text
    assert "1.05 / 1.00" in text  # the ratios, forward / forward+backward
    assert "3.9 %" in text


def test_bars_that_are_not_met(found: dict[str, object]) -> None:
    found["steps"].append({"name": "sanity", "outcome": "failed, exit code 1", "seconds": 1.0})
    found["operation"].append(operation(1.06, 1.0))
    found["models"][0]["baseline"]["ms"] = 96.0
    found["shapes"][0]["AP"] = {"bbox": 50.6, "segm": 40.0}
    failed = not_met(found)
    assert len(failed) == 4
    reasons = ("sanity: failed", "is 1.060 (gaussian, res4", "4.0 %", "+0.60")
    assert all(reason in line for reason, line in zip(reasons, failed, strict=True))


def test_what_runs_out_of_memory(found: dict[str, object]) -> None:
    """Ours misses the bar; the usual sequence leaves nothing to compare with."""
    found["operation"][0]["ways"]["usual"] = {}
    assert not_met(found) == []
    found["operation"][0]["ways"]["matrix"] = {}
    assert "is inf (gaussian, res4" in not_met(found)[0]


def test_what_did_not_run_has_no_figures(found: dict[str, object]) -> None:
    text, _ = gpu_page.page({**found, "operation": [], "models": [], "shapes": []})
    assert "of the usual time" not in text


@pytest.mark.parametrize(
    ("commands", "outcome"),
    [
        (("-c open('{output}/new','x')", "-c pass"), "passed"),
        (("-c raise(SystemExit(3))", "-c open('never','w')"), "failed, exit code 3"),
        (("-c __import__('time').sleep(60)",), "not finished after 2 s"),
    ],
)
def test_steps(commands: tuple[str, ...], outcome: str, tmp_path: Path) -> None:
    step = Step("name", 2.0 if "not finished" in outcome else 60.0, commands)
    gpu.run(step, tmp_path)
    assert step.outcome == outcome
    assert step.seconds < 60
    assert (tmp_path / "name.log").is_file()
    assert not (gpu.ROOT / "never").exists()


def test_ctrl_c_ends_what_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    step = Step("name", 60.0, ("-c __import__('time').sleep(60)",))

    def interrupt(running: Step, output: Path) -> None:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        running.process = subprocess.Popen(command, start_new_session=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "run", interrupt)
    monkeypatch.setattr(gpu, "steps", lambda: [[step]])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--output", str(tmp_path)])
    with pytest.raises(SystemExit):
        gpu.main()
    assert step.process.poll() == -signal.SIGKILL


def test_one_failure_leaves_the_rest(
    found: dict[str, object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is measured is on the page and in gpu.json, nothing of an earlier run; checkpoints and pictures
    are removed.
    """
    (tmp_path / "models.json").write_text(json.dumps(found["models"]))
    (tmp_path / "operation.json").write_text(json.dumps(found["operation"]))
    (tmp_path / "shapes").mkdir()
    steps = [{"name": name, "outcome": "not run", "seconds": 0.0} for name in ("tests", "models")]
    assert not gpu.write({"steps": steps}, tmp_path)
    assert "R_50" in (tmp_path / "gpu.md").read_text()
    assert json.loads((tmp_path / "gpu.json").read_text())["operation"] == []
    assert not (tmp_path / "shapes").exists()


def test_a_folder_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It would lose its datasets."""
    (tmp_path / "datasets").mkdir()
    monkeypatch.setattr(gpu, "steps", list)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("sys.argv", ["gpu.py", "--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="holds other files than this tool's"):
        gpu.main()
    assert (tmp_path / "datasets").is_dir()


def test_commands_name_what_is_there() -> None:
    lines = [line for group in gpu.steps() for step in group for line in step.commands]
    files = {word for line in lines for word in line.split() if word.endswith((".py", ".yaml"))}
    assert len(files) == 3
    assert all((gpu.ROOT / file).is_file() for file in files)


def test_no_gpu_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert refusal(gpu.main) == "error: tools/gpu.py needs a GPU, and there is none."
