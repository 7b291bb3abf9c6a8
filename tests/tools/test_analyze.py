"""tools/analyze.py: its tables are the counts, and its mistakes are one line."""

import csv
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import MASK, refusal

from nl_detectron import model_zoo
from nl_detectron.inspect import count_by_stage, extra_cost
from nl_detectron_cli import analyze

BASELINE = MASK.replace("_nl", "")
SMALL = "--height 64 --width 96 --proposals 10 --detections 3"
SIZES = {"height": 64, "width": 96, "proposals": 10, "detections": 3}
Analyze = Callable[[str], str]


@pytest.fixture
def run(without_gpu: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Analyze:
    """Run the tool on a machine without a GPU: what it prints."""

    def main(arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["analyze.py", *arguments.split()])
        analyze.main()
        return capsys.readouterr().out

    return main


def read_csv(text: str) -> dict[str, list[float]]:
    rows = list(csv.reader(io.StringIO(text)))
    return {name: [float(value) for value in values] for name, *values in rows[1:]}


def test_parts(run: Analyze) -> None:
    rows = read_csv(run(f"--config-file {MASK} {SMALL} --format csv"))
    counts = count_by_stage(model_zoo.get_config(MASK), **SIZES)
    assert list(rows) == [*counts, "total", "baseline", "extra (%)"]
    units = (1e6, 1e9, 1e6)
    for part, count in counts.items():
        assert rows[part] == pytest.approx([value / unit for value, unit in zip(count, units, strict=True)])
    for sums, *column in zip(rows["total"], *(rows[part] for part in counts), strict=True):
        assert sums == pytest.approx(sum(column))
    block = rows["res4.non_local_1"]
    assert rows["baseline"] == pytest.approx([a - b for a, b in zip(rows["total"], block, strict=True)])
    extra = [100 * b / a for a, b in zip(rows["baseline"], block, strict=True)]
    assert rows["extra (%)"] == pytest.approx(extra)


def test_several_configs(run: Analyze, tmp_path: Path) -> None:
    """A line each; of a folder, for all but the bases in it."""
    for name in ("b", "a", "Base-c"):
        (tmp_path / f"{name}.yaml").write_text(f'_BASE_: "{model_zoo.get_config_file(MASK)}"')
    table = run(f"--config-file {tmp_path} --config-file {BASELINE} {SMALL} --format markdown")
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[:5]]
    assert [row[0] for row in rows] == ["a", "b", Path(BASELINE).stem]
    baseline, model = extra_cost(model_zoo.get_config(MASK), *SIZES.values())
    values = dict(zip(header[1:], map(float, rows[0][1:]), strict=True))
    assert values["parameters (M)"] == round(model.parameters / 1e6, 2)
    extra = 100 * (model.multiply_adds / baseline.multiply_adds - 1)
    assert values["multiply-adds (+%)"] == round(extra, 2)
    assert set(rows[2][-3:]) == {"0.00"}


def test_what_cannot_be_counted(run: Analyze, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One of several is named on a line of its own, and the others are listed."""
    base = f'_BASE_: "{model_zoo.get_config_file(MASK)}"\n'
    for name, keys in (("a", ""), ("b", "MODEL: {NON_LOCAL: {RES4: [7]}}"), ("c", "")):
        (tmp_path / f"{name}.yaml").write_text(base + keys)
    with pytest.raises(SystemExit, match="^1$"):
        run(f"--config-file {tmp_path} {SMALL} --format csv")
    out, err = capsys.readouterr()
    assert list(read_csv(out)) == ["a", "c"]
    rule = "MODEL.NON_LOCAL.RES4 must be a list of integers from -2 to 2"
    assert len(re.findall(rf"[\r\n]error: {tmp_path}/b.yaml: {rule}", err)) == 1
    for name in "ac":
        (tmp_path / f"{name}.yaml").write_text("NO_KEY: 1")
    said = refusal(run, f"--config-file {tmp_path} {SMALL}")
    assert said == "error: None of the configs can be counted (see above)."


def test_output(run: Analyze, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("before")
    assert run(f"--config-file {MASK} {SMALL} --format csv --output {path}") == ""
    assert path.read_text() == run(f"--config-file {MASK} {SMALL} --format csv")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "Give a --config-file, such as quick_schedules/"),
        ("--config-file {tmp}", "--config-file '{tmp}' is a folder without configs."),
        (f"--config-file {MASK} --height 0", "--height and --width must be 1 or more, --proposals and"),
        (f"--config-file {MASK} --detections -1", "--height and --width must be 1 or more, --proposals and"),
        (f"--config-file {BASELINE} MODEL.NON_LOCAL.RES4 [0]", "MODEL.NON_LOCAL.RES4 is set, but "),
        (f"--config-file {MASK} {SMALL} --output {{tmp}}", "[Errno 21] Is a directory"),
    ],
)
def test_what_is_refused(arguments: str, message: str, run: Analyze, tmp_path: Path) -> None:
    said = refusal(run, arguments.format(tmp=tmp_path))
    assert said.startswith(f"error: {message.format(tmp=tmp_path)}")
    assert list(tmp_path.iterdir()) == []
