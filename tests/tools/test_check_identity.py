"""tools/check_identity.py: it is convinced by the identity, and by nothing else."""

import sys
from collections.abc import Callable
from pathlib import Path

import check_identity
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from runs import KEYPOINT, MASK
from torch import Tensor

from nl_detectron import NonLocalBlock, model_zoo
from nl_detectron.config import baseline_of

Check = Callable[..., tuple[object, str]]


def save(config: str, path: Path, of_baseline: bool = True) -> Path:
    cfg = model_zoo.get_config(config)
    cfg.MODEL.DEVICE = "cpu"
    torch.save(build_model(baseline_of(cfg) if of_baseline else cfg).state_dict(), path)
    return path


@pytest.fixture
def check(shapes_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the tool; its exit code, or the line it ends with, and what it prints."""

    def run(config: str, weights: object, *arguments: str, threshold: float = 0.0) -> tuple[object, str]:
        options = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", str(threshold)]
        sizes = ["INPUT.MIN_SIZE_TEST", "96", "MODEL.WEIGHTS", str(weights)]
        argv = ["check_identity.py", "--config-file", config, *arguments, *options, *sizes]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as stopped:
            check_identity.main()
        return stopped.value.code, capsys.readouterr().out

    return run


@pytest.mark.parametrize(
    ("config", "compared"),
    [(MASK, "p2 p6 pred_boxes scores pred_classes pred_masks"), (KEYPOINT, "p2 pred_boxes pred_keypoints")],
    ids=["mask", "keypoint"],
)
def test_new_blocks_change_nothing(config: str, compared: str, check: Check, tmp_path: Path) -> None:
    code, printed = check(config, save(config, tmp_path / "baseline.pth"), "--images", "2")
    assert code == 0
    header = next(line for line in printed.splitlines() if line.startswith("| image"))
    assert set(compared.split()) <= set(header.split())
    assert "Identical, bit for bit: 2 images, " in printed
    assert "new, as expected" in printed


def test_an_image_of_the_users(check: Check, shapes_root: Path, tmp_path: Path) -> None:
    file = shapes_root / "shapes" / "train" / "000000000003.jpg"
    code, printed = check(MASK, save(MASK, tmp_path / "baseline.pth"), "--input", str(file))
    assert code == 0
    assert "| 000000000003.jpg |" in printed


def test_a_set_of_other_metrics(check: Check, shapes_root: Path, tmp_path: Path) -> None:
    """Panoptic ones, for instance: nothing is evaluated here."""
    source = shapes_root / "shapes"
    DatasetCatalog.register("others", lambda: DatasetCatalog.get("shapes_val"))
    MetadataCatalog.get("others").set(evaluator_type="coco_panoptic_seg", image_root=str(source / "val"))
    try:
        weights = save(MASK, tmp_path / "baseline.pth")
        code, _ = check(MASK, weights, "--images", "1", "DATASETS.TEST", "('others',)")
        assert code == 0
    finally:
        DatasetCatalog.remove("others")
        MetadataCatalog.remove("others")


def test_a_small_difference_is_found(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: NonLocalBlock, x: Tensor) -> Tensor:
        return x * (1 + 2**-20)

    monkeypatch.setattr(NonLocalBlock, "forward", forward)
    code, printed = check(MASK, save(MASK, tmp_path / "baseline.pth"), "--images", "1")
    assert code == 1
    assert "NOT identical: 000000000000.jpg." in printed


def test_nothing_is_shown_without_detections(check: Check, tmp_path: Path) -> None:
    code, printed = check(MASK, save(MASK, tmp_path / "baseline.pth"), threshold=1.0)
    assert code == 1
    assert "NOT shown: there is no detection to compare" in printed


def test_what_is_refused(check: Check, tmp_path: Path) -> None:
    own, baseline = save(MASK, tmp_path / "own.pth", of_baseline=False), save(MASK, tmp_path / "baseline.pth")
    image = ("--input", "no.jpg")
    for config, weights, words, message in (
        (MASK, own, (), f"MODEL.WEIGHTS '{own}' has blocks. Give a checkpoint of the baseline."),
        (MASK.replace("_nl", ""), baseline, (), "The config places no non-local blocks. Use one with nl in "),
        (MASK, "", (), "MODEL.WEIGHTS "),
        (KEYPOINT, baseline, (), f"MODEL.WEIGHTS '{baseline}' does not hold all of this model: "),
        (MASK, baseline, image, "--input 'no.jpg' names no image."),
        (MASK, baseline, ("--images", "0"), "There are no images to compare. Give --input, or DATASETS.TEST"),
    ):
        code, _ = check(config, weights, *words)
        assert code.startswith(f"error: {message}")
