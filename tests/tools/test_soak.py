"""tools/soak.py: what it calls growth and a difference, and its report."""

import json
import shutil
from pathlib import Path

import fake_training
import pytest
import soak
import torch

DETECTIONS = "inference/coco_instances_results.json"


def outcome(folder: Path, weight: float = 1.0, score: float = 0.5) -> Path:
    """What a training leaves behind."""
    trainer = {"iteration": 4, "config": f"OUTPUT_DIR: {folder}"}
    checkpoint = {"model": {"w": torch.tensor([weight, torch.nan])}, "trainer": trainer}
    checkpoint |= {"non_local": {}, "metadata": {"thing_classes": ["circle"]}}
    (folder / DETECTIONS).parent.mkdir(parents=True)
    torch.save(checkpoint, folder / "model_final.pth")
    (folder / DETECTIONS).write_text(json.dumps([{"score": score}]))
    return folder


def test_a_difference_is_seen_to_the_bit(tmp_path: Path) -> None:
    one, same = outcome(tmp_path / "one"), outcome(tmp_path / "same")
    assert soak.difference(one, same) == ""
    assert "not equal" in soak.difference(one, outcome(tmp_path / "weights", 1 + 2**-23))
    assert soak.difference(one, outcome(tmp_path / "detections", score=0.6)) == "The detections differ."
    with pytest.raises(soak.UserError, match=r"A training failed: see .*/no.log."):
        soak.difference(tmp_path / "no", one)


def test_growth() -> None:
    """The first third is not counted; a period of 10 is noise that the medians of ten parts do not see."""
    steady = [*range(100), *([5.0, 7.0] * 100)]
    assert soak.growth(steady) == {"middle third": 6.0, "last third": 6.0, "noise": 0.0}
    rising = [float(k) for k in range(300)]
    assert soak.growth(rising) == {"middle third": 149.5, "last third": 249.5, "noise": 90.0}


@pytest.mark.slow
@pytest.mark.parametrize("differs", [False, True])
def test_what_is_reported(
    differs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of trainings that take half a second."""
    outcome(tmp_path / "outcome_of_uninterrupted")
    outcome(tmp_path / "outcome_of_killed", weight=2.0 if differs else 1.0)
    shutil.copy(fake_training.__file__, tmp_path / "train_net.py")
    monkeypatch.setattr(soak, "ROOT", tmp_path)
    monkeypatch.setattr(soak, "write_shapes", lambda folder, **sizes: folder.mkdir(parents=True))
    assert soak.soak(tmp_path / "soak", minutes=0.05, seed=0) != differs
    results = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert results["kills"] >= 1
    assert results["trainings that differ"] == (results["trainings"] if differs else 0)
    printed = capsys.readouterr().out
    assert ("A training came out differently after" in printed) == differs
    assert "| trainings that differ" in printed
    assert (tmp_path / "soak" / "soak.png").stat().st_size > 10_000
