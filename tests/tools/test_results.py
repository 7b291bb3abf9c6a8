"""tools/results.py: a pair of real trainings through all of it, and its mistakes."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import results
from made_up_runs import MASK, MASK_NL, finished, write_log
from runs import arguments, refusal, run_here

Tool = Callable[..., str]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run it; what it prints."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["results.py", *map(str, words)])
        results.main()
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def trained(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A baseline and a model with a block, trained for 4 steps and evaluated after 2 and 4."""
    folders = [tmp_path_factory.mktemp(name) for name in ("base", "nl")]
    for config, folder in zip((MASK, MASK_NL), folders, strict=True):
        options = ["SOLVER.MAX_ITER", "4", "TEST.EVAL_PERIOD", "2", "SEED", "3"]
        run_here(*arguments(config, folder, *options))
    return folders


def test_real_trainings(trained: list[Path], tool: Tool, tmp_path: Path) -> None:
    table, curves, readme = (tmp_path / name for name in ("table.csv", "curves.png", "README.md"))
    readme.write_text("<!-- results:mask -->\n<!-- /results -->\n")
    assert (
        tool(
            "--input", *trained, "--format", "csv", "--output", table, "--curves", curves, "--update", readme
        )
        == ""
    )
    last = [json.loads((folder / "metrics.json").read_text().splitlines()[-1]) for folder in trained]
    with table.open() as file:
        base, nl, difference = csv.DictReader(file)
    for key, column in (("bbox/AP", "box AP"), ("segm/AP75", "mask AP75")):
        before, after = (metrics[key] for metrics in last)
        assert float(base[column]) == pytest.approx(before, abs=1e-4)
        assert float(nl[column]) == pytest.approx(after, abs=1e-4)
        assert float(difference[column]) == pytest.approx(after - before, abs=1e-4)
    assert [row["blocks"] for row in (base, nl, difference)] == ["baseline", "+1 NL in res4", "difference"]
    assert (nl["model"], nl["steps"], nl["runs"]) == ("Mask R-CNN R18-FPN", "4 x 2 images", "1 seed")
    assert nl["training time"].startswith("0:0")
    # Of 256 channels: theta, phi and g 256 * 128 + 128 each, out 128 * 256 + 256, its norm 2 * 256.
    assert difference["parameters"].startswith("+0.132 M (+")
    assert curves.stat().st_size > 10_000
    assert readme.read_text().count("| not trained |") == 6
    assert "| Mask R-CNN R18-FPN " in readme.read_text()


def test_prints_a_table(tool: Tool, trained: list[Path]) -> None:
    lines = tool("--input", *trained).splitlines()
    assert lines[0].split()[:3] == ["model", "steps", "tested"]
    assert len(lines) == 2 + 3


def test_one_training_is_not_finished(tool: Tool, trained: list[Path], tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    write_log(killed, events="Starting training from iteration 0\n")
    (killed / "metrics.json").touch()
    message = refusal(tool, "--input", *trained, killed, "--output", tmp_path / "table")
    assert message.startswith(f"error: {killed} must be trained to SOLVER.MAX_ITER 100 and evaluated there")
    assert not (tmp_path / "table").exists()


def test_mistakes(tool: Tool, trained: list[Path], tmp_path: Path) -> None:
    assert refusal(tool) == "error: --input must name output folders of train_net.py; got none."
    assert refusal(tool, "--update", "README.md").startswith("error: --input must name")
    assert refusal(tool, "--input", trained[1]).startswith(f"error: {trained[1]} must have a baseline of the")
    assert refusal(tool, "--input", *trained, trained[1]).startswith(
        "error: each training must be given once"
    )
    alone = finished(tmp_path / "lr", MASK, "SOLVER.BASE_LR", "0.5", scores={"bbox": (1.0, 2.0, 3.0)}).folder
    assert "another SOLVER.BASE_LR, 0.02 instead of 0.5;" in refusal(tool, "--input", *trained, alone)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output {md} --update {md}", "--output must be another file than that of --update; got "),
        ("--curves {link} --update {md}", "--curves must be another file than that of --update; got "),
        ("--output {run}/metrics.json", "--output must be outside the folders of --input; got "),
        ("--curves {run}/inference/c.png", "--curves must be outside the folders of --input; got "),
        ("--output {tmp}/no/table", "--output must be a file in a folder that exists; got "),
        ("--output=", "--output must be a file in a folder that exists; got '.'"),
        ("--curves {tmp}/curves.doc", "{tmp}/curves.doc must end in a format that can be drawn; use .png"),
        ("--update {tmp}/no.md", "[Errno 2] No such file"),
        ("--update {latin}", "{latin} must be UTF-8; byte 0 is not."),
        ("--update {md} --curves {tmp}/c.png", "{md} must have places for tables"),
    ],
)
def test_files_are_refused_before_anything_is_written(
    flags: str, message: str, trained: list[Path], tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {"tmp": tmp_path, "run": trained[0]}
    places |= {name: tmp_path / f"{name}.svg" for name in ("md", "link", "latin")}
    places["md"].write_text("No place.")
    places["link"].symlink_to(places["md"])
    places["latin"].write_bytes(b"\xe9")
    before = {path: path.read_bytes() for folder in (tmp_path, *trained) for path in folder.glob("*.*")}
    words = flags.format(**places).split()
    assert refusal(tool, "--input", *trained, *words).startswith(f"error: {message.format(**places)}")
    assert capsys.readouterr().out == ""
    after = {path: path.read_bytes() for folder in (tmp_path, *trained) for path in folder.glob("*.*")}
    assert after == before
