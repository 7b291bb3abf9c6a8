"""Kinetics and Charades in their own folders."""

from pathlib import Path

import pytest
from nl_video.sources import charades, kinetics

from nl_detectron.errors import UserError


def test_kinetics(tmp_path: Path) -> None:
    """Classes are numbered in alphabetical order; files that are no videos are left out."""
    for name in ("train/zumba/b.mp4", "train/zumba/a.MKV", "train/abseiling/c.webm", "train/zumba/list.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train/empty class").mkdir()
    found = [
        (Path(each["file_name"]).relative_to(tmp_path), each["label"])
        for each in kinetics(str(tmp_path), "train")
    ]
    assert [(str(path), label) for path, label in found] == [
        ("train/abseiling/c.webm", 0),
        ("train/zumba/a.MKV", 2),
        ("train/zumba/b.mp4", 2),
    ]


def test_classes_are_those_of_the_training_videos(tmp_path: Path) -> None:
    """Also where a test set has fewer; hidden folders are none; another one is refused."""
    for name in (
        "train/a/1.mp4",
        "train/b/1.mp4",
        "train/c/1.mp4",
        "train/.ipynb_checkpoints/1.mp4",
        "val/c/1.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [each["label"] for each in kinetics(str(tmp_path), "val")] == [2]
    assert [each["label"] for each in kinetics(str(tmp_path), "train")] == [0, 1, 2]
    (tmp_path / "val" / "d").mkdir()
    with pytest.raises(UserError, match="val has d, which .*train lacks"):
        kinetics(str(tmp_path), "val")


def test_no_kinetics(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train need a folder for each class"):
        kinetics(str(tmp_path), "train")
    (tmp_path / "train" / "zumba").mkdir(parents=True)
    with pytest.raises(UserError, match=r"train has no video: none ends in \.mp4, \.avi"):
        kinetics(str(tmp_path), "train")


HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"


def test_charades(tmp_path: Path) -> None:
    """All actions of a video, each once; none is a label too."""
    actions = "c092 11.90 21.20;c147 0.00 12.60;c092 1 2"
    rows = f'46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, and talks.",food,"x;y",{actions},24.83\n'
    rows += "N11GT,HR43,Stairs,6,7,Yes,text,floor,x,,18.33\n"
    (tmp_path / "Charades_v1_train.csv").write_text(HEADER + rows)
    first, second = charades(str(tmp_path), "train")
    assert first == {"file_name": str(tmp_path / "Charades_v1_480" / "46GP8.mp4"), "label": [92, 147]}
    assert second["label"] == []


@pytest.mark.parametrize(
    "content", [None, HEADER, "a,b\n1,2\n", HEADER + "1,2,3,4,5,6,7,8,9,standing 1 2,11\n"]
)
def test_no_charades(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "Charades_v1_test.csv").write_text(content)
    with pytest.raises(UserError, match=r"Charades_v1_test\.csv (is no list of Charades|lists no video)"):
        charades(str(tmp_path), "test")
