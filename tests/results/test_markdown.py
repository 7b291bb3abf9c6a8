"""Tables in a Markdown file: what is filled in, and what is left alone."""

import shutil
import stat
from pathlib import Path

import pytest
from made_up_runs import COCO, MASK, MASK_NL, finished
from runs import ROOT

from nl_detectron.errors import UserError
from nl_detectron.results import Comparison, fill_in, format_table, pair_runs, result_table

README = "# Results\n\n<!-- results:mask -->\nold \\1\n<!-- /results -->\nBetween.\n{}\nAfter.\n"
KEYPOINT = "<!-- results:keypoint -->\n<!-- /results -->"
pytestmark = pytest.mark.usefixtures("no_counting")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(README.format(KEYPOINT))
    return path


def compared(tmp_path: Path, *tasks: str) -> list[Comparison]:
    scores = {task: (30.0, 50.0, 20.0) for task in tasks}
    return pair_runs(finished(tmp_path / config[-15:], config, scores=scores) for config in (MASK, MASK_NL))


def test_without_trainings_all_rows_are_the_papers(readme: Path) -> None:
    fill_in(readme, [])
    before, mask, between, keypoint, after = (
        part for piece in readme.read_text().split("<!-- /results -->") for part in piece.split(" -->\n")
    )
    assert before == "# Results\n\n<!-- results:mask"
    assert between == "\nBetween.\n<!-- results:keypoint"
    assert after == "\nAfter.\n"
    rows = [cells(line) for line in mask.splitlines()]
    assert rows[0][:4] == ["model", "tested on", "blocks", "runs"]
    assert rows[2] == ["Mask R-CNN R50-FPN", "coco_2017_val", "baseline", "not trained", *[""] * 6]
    label = ["Mask R-CNN X152-FPN", "coco_2017_val", "+1 NL in res4", "the paper's"]
    assert rows[-1] == [*label, "45.0", "67.8", "48.9", "40.3", "64.4", "42.8"]
    assert [row[3] for row in rows[2:]] == ["not trained", "the paper's"] * 6
    rows = [cells(line) for line in keypoint.splitlines()]
    label = ["Keypoint R-CNN R101-FPN", "keypoints_coco_2017_val"]
    assert rows[-1] == [*label, "+4 NL in head, +1 NL in res4", "the paper's", "66.5", "87.3", "72.8"]
    assert len(rows) == 2 + 6


def test_the_readmes_tables_are_these(tmp_path: Path) -> None:
    """Until one of its rows is trained."""
    copy = tmp_path / "README.md"
    shutil.copy(ROOT / "README.md", copy)
    fill_in(copy, [])
    assert copy.read_bytes() == (ROOT / "README.md").read_bytes()


def test_the_rest_of_the_file_stays(readme: Path, tmp_path: Path) -> None:
    readme.write_bytes(b"\xef\xbb\xbf" + readme.read_bytes().replace(b"\n", b"\r\n"))
    readme.chmod(0o640)
    (tmp_path / "folder").mkdir()
    link = tmp_path / "folder" / "link.md"
    link.symlink_to("../README.md")
    fill_in(link, [])
    assert link.is_symlink()
    assert stat.S_IMODE(readme.stat().st_mode) == 0o640
    text = readme.read_bytes()
    assert text.startswith(b"\xef\xbb\xbf# Results\r\n")
    assert text.count(b"\n") == text.count(b"\r\n") == 8 + 14 + 8  # the tables have 14 and 8


def test_a_file_that_is_not_utf8(readme: Path) -> None:
    readme.write_bytes(b"R\xe9sultats")
    with pytest.raises(UserError, match=r"README.md must be UTF-8; byte 1 is not. Save it as UTF-8."):
        fill_in(readme, [])


def test_an_ap_that_is_no_number(readme: Path, tmp_path: Path) -> None:
    scores = {"bbox": (30.0, 50.0, 20.0), "segm": (30.0, float("nan"), 20.0)}
    runs = [finished(tmp_path / config[-15:], config, scores=scores) for config in (MASK, MASK_NL)]
    assert "| nan " in format_table(result_table(pair_runs(runs)), "markdown")
    assert "+nan" not in format_table(result_table(pair_runs(runs)), "markdown")
    before = readme.read_text()
    with pytest.raises(UserError) as refused:
        fill_in(readme, pair_runs(runs))
    assert str(refused.value) == (
        f"{runs[0].folder}: segm/AP50 must be a number to go into {readme}; got nan. Train for longer."
    )
    assert readme.read_text() == before


def test_it_is_filled_in_again(readme: Path, tmp_path: Path) -> None:
    fill_in(readme, compared(tmp_path, "bbox", "segm"))
    once = readme.read_text()
    assert "| Mask R-CNN R18-FPN  |" in once
    assert "old" not in once
    fill_in(readme, compared(tmp_path, "bbox", "segm"))
    assert readme.read_text() == once
    fill_in(readme, [])
    assert "R18" not in readme.read_text()
    assert not [*tmp_path.glob(".unfinished*")]


def test_rows_of_the_paper_that_were_trained_take_their_place(readme: Path, tmp_path: Path) -> None:
    name = "COCO-Keypoints/keypoint_rcnn_R_101_FPN_{}1x.yaml"
    scores = {"bbox": (50.0, 80.0, 55.0), "keypoints": (65.0, 86.0, 70.0)}
    runs = [
        finished(tmp_path / f"r{k}", name.format(k), scores=scores, images=COCO)
        for k in ("", "nl_head_backbone_")
    ]
    fill_in(readme, pair_runs(runs))
    table = readme.read_text().split("results:keypoint -->\n")[1]
    owners = [cells(line)[3:5] for line in table.splitlines()[2:10]]
    assert owners == [
        ["baseline", "1 seed"],
        ["baseline", "the paper's"],
        ["+4 NL in head, +1 NL in res4", "1 seed"],
        ["+4 NL in head, +1 NL in res4", "the paper's"],
        ["difference", "1 seed"],
        ["difference", "the paper's"],
        ["+4 NL in head", "not trained"],
        ["+4 NL in head", "the paper's"],
    ]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "none of 0"),
        ("<!-- results:mask -->\n", "none of 1"),
        ("<!-- results:mask -->\n" + KEYPOINT, "['keypoint'] of 2"),
        ("<!-- results:masks -->\n<!-- /results -->", "['masks'] of 1"),
        (KEYPOINT + "<!-- results:mask-->\n<!-- /results -->", "['keypoint'] of 2"),
    ],
    ids=["none", "no end", "one without end", "unknown", "misspelt"],
)
def test_places_that_are_none(text: str, got: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        fill_in(path, [])
    assert str(refused.value) == (
        f"{path} must have places for tables, each between a line <!-- results:keypoint -->, "
        f"<!-- results:mask -->, <!-- results:box --> and a line <!-- /results -->; got {got}."
    )
    assert path.read_text() == text


def test_runs_without_a_place(readme: Path, tmp_path: Path) -> None:
    before = readme.read_text()
    with pytest.raises(UserError, match="README.md must have a place <!-- results:box --> for "):
        fill_in(readme, compared(tmp_path, "bbox"))
    assert readme.read_text() == before
