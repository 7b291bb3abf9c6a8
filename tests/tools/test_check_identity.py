"""tools/check_identity.py: it is convinced by the identity, and by nothing else."""

import sys
from collections.abc import Callable
from pathlib import Path

import check_identity
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from runs import KEYPOINT, MASK, registrations_forgotten

from nl_detectron import NonLocalBlock, model_zoo
from nl_detectron.config import baseline_of

Check = Callable[..., tuple[object, str]]


def save(config: str, path: Path, of_baseline: bool = True) -> Path:
    cfg = model_zoo.get_config(config)
    cfg.MODEL.DEVICE = "cpu"
    torch.save(build_model(baseline_of(cfg) if of_baseline else cfg).state_dict(), path)
    return path


@pytest.fixture
def check(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Check:
    """Run the tool with the weights of MASK's baseline; its exit code or last line, and what it prints."""
    weights = save(MASK, tmp_path / "baseline.pth")

    def run(*words: object, config: str = MASK, weights: object = weights) -> tuple[object, str]:
        options = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", 96, "MODEL.WEIGHTS", weights]
        argv = ["check_identity.py", "--config-file", config, *words, *options]
        monkeypatch.setattr(sys, "argv", [*map(str, argv)])
        with pytest.raises(SystemExit) as stopped:
            check_identity.main()
        return stopped.value.code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("config", "compared"),
    [(MASK, "p2 p6 pred_boxes scores pred_classes pred_masks"), (KEYPOINT, "p2 pred_boxes pred_keypoints")],
)
def test_new_blocks_change_nothing(config: str, compared: str, check: Check, tmp_path: Path) -> None:
    weights = save(config, tmp_path / "own.pth")
    code, printed = check("--images", "2", config=config, weights=weights)
    assert code == 0
    header = next(line for line in printed.splitlines() if line.startswith("| image"))
    assert set(compared.split()) <= set(header.split())
    assert "Identical, bit for bit: 2 images, " in printed
    assert "new, as expected" in printed


def test_a_set_of_other_metrics(check: Check) -> None:
    """Panoptic ones, for instance: nothing is evaluated here."""
    with registrations_forgotten():
        DatasetCatalog.register("others", lambda: DatasetCatalog.get("shapes_val"))
        MetadataCatalog.get("others").evaluator_type = "coco_panoptic_seg"
        assert check("--images", "1", "DATASETS.TEST", "('others',)")[0] == 0


def test_a_small_difference(check: Check, shapes_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an image of the user's."""
    monkeypatch.setattr(NonLocalBlock, "forward", lambda self, x: x * (1 + 2**-20))
    code, printed = check("--input", shapes_root / "shapes" / "train" / "000000000003.jpg")
    assert code == 1
    assert "NOT identical: 000000000003.jpg." in printed


def test_nothing_is_shown_without_detections(check: Check) -> None:
    code, printed = check("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)
    assert code == 1
    assert "NOT shown: there is no detection to compare" in printed


def test_what_is_refused(check: Check, tmp_path: Path) -> None:
    own, baseline = save(MASK, tmp_path / "own.pth", of_baseline=False), tmp_path / "baseline.pth"
    for words, options, message in (
        ("", {"weights": own}, f"MODEL.WEIGHTS '{own}' has blocks. Give a checkpoint of the baseline."),
        ("", {"config": MASK.replace("_nl", "")}, "The config places no non-local blocks. Use one with "),
        ("", {"weights": ""}, "MODEL.WEIGHTS "),
        ("", {"config": KEYPOINT}, f"MODEL.WEIGHTS '{baseline}' does not hold all of this model: "),
        ("--input no.jpg", {}, "--input 'no.jpg' names no image."),
        ("--images 0", {}, "There are no images to compare. Give --input, or DATASETS.TEST"),
    ):
        code, _ = check(*words.split(), **options)
        assert code.startswith(f"error: {message}")
