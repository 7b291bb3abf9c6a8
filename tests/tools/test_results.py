"""tools/results.py: a pair of real trainings through all of it, its files, and its mistakes."""

import csv
import json
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_runs import MASK, MASK_NL, finished, write_metrics, write_record
from runs import arguments, refusal, run_here

from nl_detectron.inspect import Counts
from nl_detectron_cli import results

Tool = Callable[..., str]
END = "<!-- /results -->"
PLACES = f"<!-- results:mask -->\nold \\1\n{END}\nBetween.\n<!-- results:keypoint -->\n{END}"


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Run it; what it prints."""

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["results.py", *map(str, words)])
        results.main()
        printed = capsys.readouterr()
        return printed.err + printed.out

    return run


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A made-up baseline and model with a block, whose cost is not counted: that takes seconds."""
    costs = (Counts(1, 1, 1), Counts(1, 1, 1))
    monkeypatch.setattr("nl_detectron_cli.result_tables.tables.extra_cost", lambda *_: costs)
    scores = {"bbox": (30.0, 50.0, 20.0), "segm": (29.0, 49.0, 19.0)}
    folders = [tmp_path / "base", tmp_path / "nl"]
    for folder, config in zip(folders, (MASK, MASK_NL), strict=True):
        finished(folder, config, scores=scores)
    return folders


@pytest.mark.slow
def test_real_trainings(shapes_root: Path, tool: Tool, tmp_path: Path) -> None:
    folders = [tmp_path / "base", tmp_path / "nl"]
    for config, folder in zip((MASK, MASK_NL), folders, strict=True):
        run_here(*arguments(config, folder, *"SOLVER.MAX_ITER 4 TEST.EVAL_PERIOD 2 SEED 3".split()))
    table, curves = tmp_path / "table.csv", tmp_path / "curves.png"
    tool("--input", *folders, "--format", "csv", "--output", table, "--curves", curves)
    last = [json.loads((folder / "metrics.json").read_text().splitlines()[-1]) for folder in folders]
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


def test_the_table_is_printed_and_files_are_written(tool: Tool, pair: list[Path], tmp_path: Path) -> None:
    lines = tool("--input", *pair).splitlines()
    assert lines[0].split()[:3] == ["model", "steps", "tested"]
    assert len(lines) == 2 + 3
    assert tool("--input", *pair, "--output", tmp_path / "table", "--curves", tmp_path / "c.svg") == ""
    assert (tmp_path / "table").read_text().splitlines() == lines
    assert "<svg" in (tmp_path / "c.svg").read_text()


def test_what_stands_alone_is_listed(
    tool: Tool, pair: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a difference, below the pairs or by itself; a note on stderr names the nearest."""
    for seed in (2, 3):
        config = MASK_NL if seed == 2 else MASK
        finished(tmp_path / f"seed_{seed}", config, "SEED", str(seed), scores={"bbox": (33.0, 50.0, 20.0)})
    alone = [tmp_path / f"seed_{seed}" for seed in (2, 3)]
    table, curves = tmp_path / "table.csv", tmp_path / "curves.png"
    note = tool("--input", *pair, *alone, "--format", "csv", "--output", table, "--curves", curves)
    assert f"{alone[0]} has no baseline of the same setting and SEED beside it. The nearest, " in note
    assert f"{alone[1]} has no run with non-local blocks" in note
    with table.open() as file:
        rows = [(row["blocks"], row["runs"], row["box AP"]) for row in csv.DictReader(file)]
    assert rows[:2] == [("baseline", "1 seed", "30.0"), ("+1 NL in res4", "1 seed", "30.0")]
    assert rows[3:] == [("+1 NL in res4", "SEED 2, alone", "33.0"), ("baseline", "SEED 3, alone", "33.0")]
    assert len(tool("--input", alone[0]).splitlines()) == 1 + 2 + 1


def test_the_rest_of_a_markdown_file_stays(tool: Tool, pair: list[Path], tmp_path: Path) -> None:
    """Its mode, its line ends and its byte order mark; also through a link, and a second time."""
    page, link = tmp_path / "page.md", tmp_path / "link.md"
    page.write_bytes(b"\xef\xbb\xbf# Title\r\n" + PLACES.encode())
    page.chmod(0o640)
    link.symlink_to("page.md")
    tool("--input", *pair, "--update", link)
    once = page.read_bytes()
    tool("--input", *pair, "--update", link)
    assert page.read_bytes() == once
    assert link.is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    assert once.startswith(b"\xef\xbb\xbf# Title\r\n<!-- results:mask -->\n| model ")
    assert once.count(b"\n") == 5 + 17 + 8  # the tables have 17 and 8
    assert once.count(b"| not trained |") == 6 + 3
    assert b"| Mask R-CNN R18-FPN " in once
    assert b"\nBetween.\n" in once
    assert b"old" not in once


@pytest.mark.parametrize(("last", "is_finished"), [(0, False), (100, False), (99, True)])
def test_an_unfinished_training(last: int, is_finished: bool, tool: Tool, tmp_path: Path) -> None:
    """At its start, in the last evaluation; and one whose last metrics are gone."""
    folder, table = tmp_path / "killed", tmp_path / "table"
    write_record(folder, finished=is_finished)
    write_metrics(folder, last, bbox=(1.0, 2.0, 3.0))
    assert refusal(tool, "--input", folder, "--output", table) == (
        f"error: {folder} is not finished: its last metrics are of iteration {last}, and iteration 100 is "
        "not evaluated. Continue it with train_net.py --resume."
    )
    assert not table.exists()


def test_two_data_sets(tool: Tool, tmp_path: Path) -> None:
    sets = ("DATASETS.TEST", "('shapes_val', 'shapes_train')")
    finished(tmp_path, MASK, *sets, scores={"shapes_val/bbox": (1.0, 2.0, 3.0)})
    said = refusal(tool, "--input", tmp_path)
    assert said == f"error: {tmp_path} was tested on 2 data sets. Only runs with one are compared."


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--output no/table", "[Errno 2] No such file"),
        ("--curves curves.doc", "--curves curves.doc must end in .png, .pdf, .svg."),
        ("--update no.md", "[Errno 2] No such file"),
        ("--update page.md --curves c.png", "page.md needs places for tables: a line <!-- results:"),
    ],
)
def test_files_are_refused_before_anything_is_written(
    flags: str, message: str, pair: list[Path], tool: Tool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("page.md").write_text("No place.")
    before = {*tmp_path.rglob("*")}
    assert refusal(tool, "--input", *pair, *flags.split()).startswith(f"error: {message}")
    assert {*tmp_path.rglob("*")} == before
    assert Path("page.md").read_text() == "No place."
