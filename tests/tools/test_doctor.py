"""tools/doctor.py: what it says of a COCO file, and what it writes."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import cv2
import doctor
import pytest
from coco_kinds import each, plain, write
from runs import registrations_forgotten

Run = Callable[..., tuple[object, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the tool on birds without `iscrowd`; its exit code or its last line, and what it prints."""
    monkeypatch.chdir(tmp_path)
    content = plain(tmp_path / "birds")
    each(iscrowd=...)(content, tmp_path)
    write(content, tmp_path / "birds")

    def run(*words: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["doctor.py", "birds", "birds.json", "birds", *words])
        code: object = 0
        with registrations_forgotten():
            try:
                doctor.main()
            except SystemExit as stopped:
                code = stopped.code
        return code, capsys.readouterr().out

    return run


def test_a_file_and_its_pictures(run: Run, tmp_path: Path) -> None:
    before = (tmp_path / "birds.json").read_bytes()
    code, printed = run("--decode-all", "--output", "clean.json", "--pictures", "looks", "--count", "2")
    assert code == 0
    assert "birds: 6 images, 0 without objects; 6 objects" in printed
    assert "masks: 6; crowds: 0; keypoints: beak, left_wing, right_wing" in printed
    assert "All images can be decoded." in printed
    assert "6 x iscrowd missing" in printed
    assert {each["iscrowd"] for each in json.loads((tmp_path / "clean.json").read_text())["annotations"]} == {
        0
    }
    assert (tmp_path / "birds.json").read_bytes() == before
    pictures = sorted((tmp_path / "looks").iterdir())
    assert [picture.name for picture in pictures] == ["1_1.png", "4_4.png"]
    drawn, plain_ = cv2.imread(str(pictures[0])), cv2.imread(str(tmp_path / "birds" / "1.png"))
    assert drawn.shape[1] >= 640
    assert abs(cv2.resize(drawn, plain_.shape[1::-1]).astype(int) - plain_).max() > 60  # objects are drawn


def test_pictures_of_images_whose_ids_are_paths(run: Run, tmp_path: Path) -> None:
    content = json.loads((tmp_path / "birds.json").read_text())
    for entry, key in [
        *((e, "id") for e in content["images"]),
        *((o, "image_id") for o in content["annotations"]),
    ]:
        entry[key] = f"train/{entry[key]}.png"
    write(content, tmp_path / "birds")
    assert run("--pictures", "looks", "--count", "1")[0] == 0
    assert [path.name for path in (tmp_path / "looks").iterdir()] == ["1_train_1.png.png"]


def test_what_was_mended_is_clean(run: Run, tmp_path: Path) -> None:
    run("--output", "clean.json")
    (tmp_path / "clean.json").replace(tmp_path / "birds.json")
    assert "Nothing had to be mended." in run()[1]


def test_what_it_refuses(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken.json").touch()
    assert run("--output", "taken.json")[0] == "error: --output taken.json exists. Give a new file."
    (tmp_path / "birds" / "4.png").write_text("no image")
    assert "(1: 4.png). Replace them, or give --skip-broken 1." in run()[0]
    (tmp_path / "birds" / "4.png").unlink()
    code, printed = run("--output", "clean.json")
    assert code.startswith("error: birds: birds.json is refused. Images whose file is not there")
    assert printed == ""
    assert not (tmp_path / "clean.json").exists()


def test_pictures_are_spread_evenly(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not the first ones, where fewer than twice as many are there."""
    seen = []
    monkeypatch.setattr(doctor, "why_unreadable", lambda record: seen.append(record) or "not drawn")
    for count, expected in ((2, [0, 2]), (3, [0, 1, 3]), (9, [0, 1, 2, 3, 4])):
        seen.clear()
        doctor.draw(Mock(), range(5), tmp_path, count)
        assert seen == expected
