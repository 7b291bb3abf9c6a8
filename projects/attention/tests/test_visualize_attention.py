"""tools/visualize_attention.py: its files, its table, and its refusals."""

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from runs import KEYPOINT, MASK

from nl_detectron import model_zoo
from nl_detectron.config import baseline_of
from nl_detectron_cli import visualize_attention

NAME = "backbone.bottom_up.res4.non_local_1"
Run = Callable[..., tuple[object, str]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of untrained models; "baseline" is that of MASK."""
    folder, paths = tmp_path_factory.mktemp("weights"), {}
    for name, config in (("mask", MASK), ("keypoint", KEYPOINT), ("baseline", MASK)):
        cfg = model_zoo.get_config(config)
        cfg.MODEL.DEVICE = "cpu"
        torch.manual_seed(0)
        model = build_model(baseline_of(cfg) if name == "baseline" else cfg)
        paths[name] = folder / f"{name}.pth"
        torch.save(model.state_dict(), paths[name])
    return paths


@pytest.fixture
def run(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the tool with output "out"; its exit code or last line, and what it prints."""

    def run_tool(config: str, checkpoint: Path, *arguments: str) -> tuple[object, str]:
        options = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "96", "TEST.DETECTIONS_PER_IMAGE", "3"]
        fixed = ["--output", str(tmp_path / "out"), *options, "MODEL.WEIGHTS", str(checkpoint)]
        argv = ["visualize_attention.py", "--config-file", config, *arguments, *fixed]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            visualize_attention.main()
        except SystemExit as stopped:
            code = stopped.code
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run_tool


@pytest.fixture
def images(shapes_root: Path) -> list[str]:
    return [str(shapes_root / "shapes" / "val" / f"{k:012}.jpg") for k in range(2)]


def written(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_point(run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path) -> None:
    code, printed = run(MASK, weights["mask"], "--point", "20,30", "--point", "0,0", "--input", *images)
    assert code == 0
    expected = [f"{k:012}" for k in range(2)]
    assert written(tmp_path) == sorted(
        [f"{stem}.{NAME}.point_{at}.png" for stem in expected for at in ("20,30", "0,0")]
        + [f"{stem}.html" for stem in expected]
    )
    for picture in (tmp_path / "out").glob("*.png"):
        assert cv2.imread(str(picture)).std() > 10
    rows = [line.split("|") for line in printed.splitlines() if NAME in line and "|" in line]
    assert [row[1].strip() for row in rows] == [f"{stem}.jpg" for stem in expected]
    assert all(0 <= float(row[3]) <= 0.5 and float(row[4]) == 0 for row in rows)  # new blocks change nothing
    assert printed.count(f"{NAME}: This block changes x by 0.0 %: its map says little.") == 1


@pytest.mark.slow
def test_the_keypoints_of_detections(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    arguments = ["--detections", "1", "--confidence-threshold", "0", "--block", "non_local_8"]
    code, _ = run(KEYPOINT, weights["keypoint"], *arguments, "--input", images[0])
    assert code == 0
    name = "roi_heads.keypoint_head.non_local_8"
    assert written(tmp_path) == ["000000000000.html", f"000000000000.{name}.person_1.png"]
    assert name in (tmp_path / "out" / "000000000000.html").read_text()
    assert "non_local_2" not in (tmp_path / "out" / "000000000000.html").read_text()


def test_one_detection_is_the_default(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    run(MASK, weights["mask"], "--confidence-threshold", "0", "--input", images[0])
    page, picture = written(tmp_path)[::-1]
    assert page == "000000000000.html"
    assert picture.endswith("_1.png")


def test_nothing_detected_still_gives_the_page(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    code, printed = run(MASK, weights["mask"], "--confidence-threshold", "1", "--input", images[0])
    assert code == 0
    assert "0 of 1 detections to show: see --confidence-threshold" in printed
    assert written(tmp_path) == ["000000000000.html"]
    assert '"opening": null' in (tmp_path / "out" / "000000000000.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--point", "96,0"], "--point 96,0 is outside '{image}' of 96 x 96 pixels."),
        (["--point", "0,-1"], "--point 0,-1 is outside '{image}' of 96 x 96 pixels."),
        (["--block", "res5"], f"No block is called --block res5. The model has {NAME}."),
    ],
)
def test_a_bad_value(
    arguments: list[str], message: str, run: Run, weights: dict[str, Path], images: list[str]
) -> None:
    assert run(MASK, weights["mask"], *arguments, "--input", images[0])[0] == "error: " + message.format(
        image=images[0]
    )


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["30", "40"], "write 30,40"),
        (["30,", "40"], "write 30,40"),
        (["30 40"], "write 30,40"),
        (["-3", "40"], "write -3,40"),
        (["30"], "got '30'"),
        (["middle"], "got 'middle'"),
    ],
)
def test_a_point_that_is_none(
    words: list[str], advice: str, run: Run, weights: dict[str, Path], images: list[str]
) -> None:
    code, printed = run(MASK, weights["mask"], "--detections", "30", "--point", *words, "--input", images[0])
    assert code == 2
    assert printed.endswith(f"a point is X,Y in pixels: {advice}\n")


def test_the_page_opens_with_the_first_query(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    run(MASK, weights["mask"], "--point", "20,30", "--point", "0,0", "--input", images[0])
    assert '"opening": [0, 20.5, 30.5]' in (tmp_path / "out" / "000000000000.html").read_text()


def test_a_point_in_no_region_of_a_keypoint_head(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    arguments = ["--confidence-threshold", "1", "--point", "5,5"]
    code, printed = run(KEYPOINT, weights["keypoint"], *arguments, "--input", images[0])
    assert code == 0
    assert "point 5,5 lies in no detected region" in printed
    assert written(tmp_path) == ["000000000000.html"]


def test_names_of_images_stay(run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a b.jpg", "a_b.jpg")]
    for file in files:
        file.write_bytes(Path(images[0]).read_bytes())
    run(MASK, weights["mask"], "--point", "5,5", "--input", *map(str, files))
    assert len(written(tmp_path)) == 4
    assert f"a b.{NAME}.point_5,5.png" in written(tmp_path)


def test_random_blocks_are_refused(run: Run, weights: dict[str, Path], images: list[str]) -> None:
    code, _ = run(MASK, weights["baseline"], "--point", "5,5", "--input", images[0])
    assert code == (
        f"error: MODEL.WEIGHTS '{weights['baseline']}' lacks {NAME}. Give weights that were trained with it, "
        "or --allow-mismatch to see random ones."
    )
    assert run(MASK, weights["baseline"], "--point", "5,5", "--allow-mismatch", "--input", images[0])[0] == 0


def test_a_baseline_has_nothing_to_show(run: Run, weights: dict[str, Path], images: list[str]) -> None:
    baseline = "quick_schedules/mask_rcnn_R_18_FPN_shapes.yaml"
    code, _ = run(baseline, weights["baseline"], "--point", "5,5", "--input", images[0])
    assert code == "error: The model has no non-local blocks. Use a config with nl in its name."


def test_two_images_of_one_name(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "000000000000.png"), np.zeros((20, 20, 3), np.uint8))
    code, _ = run(MASK, weights["mask"], "--input", images[0], str(tmp_path / "000000000000.png"))
    assert code == "error: 2 images are called '000000000000'. Rename them."


def test_a_broken_image_is_skipped(
    run: Run, weights: dict[str, Path], images: list[str], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(Path(images[0]).read_bytes()[:300])
    code, printed = run(
        MASK, weights["mask"], "--point", "5,5", "--input", str(tmp_path / "broken.jpg"), *images
    )
    assert code == "error: Skipped 1 of 3 images (see above)."
    assert len(written(tmp_path)) == 4
    assert printed.count(f"| {NAME}") == 2  # the table has the others
