"""tools/demo.py: what it writes, and how it answers mistakes."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from runs import KEYPOINT, MASK

from nl_detectron import model_zoo
from nl_detectron.predictor import Predictor
from nl_detectron_cli import demo
from nl_detectron_cli.detecting import program
from nl_detectron_cli.detecting.videos import frame_rate

FPS = 12.5
LEVELS = range(0, 251, 50)  # of grey, of the frames; one differs from any colour
Run = Callable[..., tuple[object, str]]


class OneBox(Predictor):
    """A predictor that sees a box in the middle of each image, and keeps its config."""

    metadata, report, cfg = Metadata(), "", None

    def __init__(self, cfg: CfgNode, allow_mismatch: bool) -> None:
        OneBox.cfg = cfg

    def batch(self, images: Sequence[np.ndarray]) -> list[dict[str, Instances]]:
        return [{"instances": one_box_in(image)} for image in images]


def one_box_in(image: np.ndarray) -> Instances:
    height, width = image.shape[:2]
    found = Instances((height, width))
    found.pred_classes = torch.tensor([0])
    found.pred_boxes = Boxes(torch.tensor([[width / 4, height / 4, width / 2, height / 2]]))
    return found


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the tool in an empty folder; its exit code or its last line, and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, config: str = MASK) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["demo.py", "--config-file", config, *map(str, words)])
        code: object = 0
        try:
            demo.main()
        except SystemExit as stopped:
            code = stopped.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


@pytest.fixture
def one_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "Predictor", OneBox)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images 0.png, 1.png and 2.png of several sizes."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k, size in enumerate([(60, 90), (80, 50), (70, 70)]):
        noise = np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{k}.png"), noise)
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return save_video(tmp_path / "video.mp4", [np.full((96, 128, 3), level, np.uint8) for level in LEVELS])


def save_video(path: Path, frames: Sequence[np.ndarray], codec: str = "mp4v", fps: float = FPS) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def read_frames(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(read[1])
    return frames


@pytest.mark.slow
@pytest.mark.parametrize("config", [MASK, KEYPOINT], ids=["mask", "keypoint"])
def test_images(config: str, run: Run, images: Path, tmp_path: Path) -> None:
    """Random weights are a little sure of everything, and never quite sure of anything."""
    cfg, weights = model_zoo.get_config(config), tmp_path / "model.pth"
    cfg.MODEL.DEVICE = "cpu"
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    for threshold, is_drawn in ((0, True), (1, False)):
        words = ("--input", images, "--output", "out", "--confidence-threshold", threshold)
        code, printed = run(*words, "INPUT.MIN_SIZE_TEST", 64, "MODEL.WEIGHTS", weights, config=config)
        assert code == 0
        assert "images written: 3" in printed
        assert f"Load report of {weights}" in printed
        for path in sorted(images.iterdir()):
            before, after = cv2.imread(str(path)), cv2.imread(str(tmp_path / "out" / path.name))
            factor = {60: 7, 80: 8, 70: 9}[before.shape[0]]  # to a longer side of about 640 pixels
            before = before.repeat(factor, axis=0).repeat(factor, axis=1)
            assert before.shape == after.shape
            assert (before != after).any() == is_drawn


def test_one_image_to_a_file(run: Run, one_box: None, images: Path, tmp_path: Path) -> None:
    """The words after it are keys of the config; their threshold wins over the flag's."""
    words = ("--output", "new/out.jpg", "--confidence-threshold", 0.25, "--scale", 1, "--input")
    words = (*words, images / "0.png")
    code, printed = run(*words, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.7)
    assert code == 0
    assert "images written: 1" in printed
    assert cv2.imread(str(tmp_path / "new" / "out.jpg")).shape == (60, 90, 3)
    assert OneBox.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.7
    assert OneBox.cfg.MODEL.RETINANET.SCORE_THRESH_TEST == 0.25


def test_broken_images_are_skipped(run: Run, one_box: None, images: Path, tmp_path: Path) -> None:
    (images / "0a.png").write_bytes((images / "0.png").read_bytes()[:999])
    cv2.imwrite(str(images / "1a.png"), np.zeros((1, 9, 3), np.uint8))
    code, printed = run("--input", images, "--output", "out")
    assert code == "error: Skipped 2 of 5 images (see above)."
    assert f"skipped: '{images}/0a.png' cannot be read: " in printed
    assert f"skipped: '{images}/1a.png' has a side below 3 pixels" in printed
    assert "images written: 3" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(("output", "path"), [("new/out.mp4", "new/out.mp4"), ("new", "new/video.mp4")])
def test_a_video(output: str, path: str, run: Run, one_box: None, video: Path, tmp_path: Path) -> None:
    code, printed = run("--video-input", video, "--output", output, "--scale", 1)
    assert code == 0
    assert f"frames written to '{path}': 6" in printed
    assert cv2.VideoCapture(str(tmp_path / path)).get(cv2.CAP_PROP_FPS) == FPS
    frames = np.stack(read_frames(tmp_path / path))
    assert frames.shape == (6, 96, 128, 3)
    changed = np.abs(frames - np.reshape(LEVELS, (6, 1, 1, 1))).max(axis=(0, 3)) > 25
    assert changed[24:48, 32:64].any()  # the box
    assert not changed[:20].any()
    assert not changed[80:].any()


@pytest.mark.parametrize(("scale", "size"), [((), (480, 640)), (("--scale", 0.5), (48, 64))])
def test_the_size_of_a_video(
    scale: tuple, size: tuple[int, int], run: Run, one_box: None, video: Path, tmp_path: Path
) -> None:
    assert run("--video-input", video, "--output", "out.mp4", *scale)[0] == 0
    assert {frame.shape[:2] for frame in read_frames(tmp_path / "out.mp4")} == {size}


@pytest.mark.parametrize(
    ("fps", "drawn"), [(211.222, 211), (23.976, 23.976), (0, 25), (1e6, 25), (float("nan"), 25)]
)
def test_rates_that_mpeg_4_cannot_hold(fps: float, drawn: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    path = save_video(tmp_path / "video.mp4", noise, fps=frame_rate(fps))
    assert len(read_frames(path)) == 6
    assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(drawn)


def test_a_video_without_a_count_of_frames(run: Run, one_box: None, tmp_path: Path) -> None:
    """OpenCV's estimate is of a constant rate, which a recorded screen does not have."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    path = save_video(tmp_path / "video.avi", noise, "MJPG").rename(tmp_path / "video.webm")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = len(read_frames(path))
    code, printed = run("--video-input", path, "--output", "out.mp4")
    assert code == 0
    assert f"frames in --video-input: {frames}; at a constant rate 20" in printed
    assert len(read_frames(tmp_path / "out.mp4")) == frames


def test_a_video_that_ends_early(run: Run, one_box: None, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    path = save_video(tmp_path / "video.avi", noise, "MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = len(read_frames(path))
    assert 0 < frames < 20
    code, printed = run("--video-input", path, "--output", "out.mp4")
    assert code == f"error: --video-input is cut short: it has {frames} of 20 frames."
    assert f"frames written to 'out.mp4': {frames}" in printed
    assert len(read_frames(tmp_path / "out.mp4")) == frames


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--input images", "Give an --output or a --json."),
        ("--webcam --output out", "Leave out --output with --webcam."),
        ("--input images --output images", "'images/0.png' would be overwritten. Give another --output."),
        ("--input images --output out.png", "--output 'out.png' is one file for 3 images. Give a folder."),
        ("--input images/0.png other/0.png --output out", "'images/0.png' and 'other/0.png' would both be "),
        ("--input a.gif --output out", "'out/a.gif' cannot be written. Give an --output with a suffix like"),
        ("--input SEED 5 --output out", "--input is empty. Is a shell variable unset?"),
        ("--input images --output out MODEL.WEIGHTS no.pth", "MODEL.WEIGHTS 'no.pth'"),
        ("--input images --output out --confidence-threshold 50", "--confidence-threshold must be from "),
        ("--input images --output out MODEL.BACKBONE.NAME build_resnet_fpn_backbone", "MODEL.NON_LOCAL.RES4"),
        ("--video-input no.mp4 --output out", "--video-input 'no.mp4' does not exist."),
        ("--video-input a.gif --output out", "--video-input 'a.gif' is not a video that OpenCV reads."),
        ("--video-input video.mp4 --output .", "'video.mp4' would be overwritten. Give another --output."),
        ("--webcam MODEL.META_ARCHITECTURE ProposalNetwork", "MODEL.META_ARCHITECTURE ProposalNetwork gives"),
        ("--webcam --json f.json", "Leave out --json with --webcam."),
        ("--input images --json found.txt", "--json 'found.txt' is not the name of a .json file."),
        ("--input images --json no.json", "--json 'no.json' holds something else than predictions. Give"),
        ("--input images --json f.json --batch 0", "--batch must be at least 1; got 0."),
        ("--input images --output out --scale 0", "--scale must be from 0.05 to 20; got 0."),
        ("--input images --output out --scale nan", "--scale must be from 0.05 to 20; got nan."),
        ("--input images --output out --json-ids no.json", "--json-ids is for --json. Give that, too."),
        (
            "--input images --json f.json --json-ids a.gif",
            "--json-ids 'a.gif' is not a COCO file: it lacks",
        ),
        (
            "--input images --json f.json --json-ids no.json",
            "--json-ids 'no.json' has no image of the name",
        ),
        (
            "--input images --json f.json --json-ids same.json",
            "'images/0.png' and 'images/1.png' have one",
        ),
        (
            "--input images --json f.json MODEL.META_ARCHITECTURE SemanticSegmentor",
            "MODEL.META_ARCHITECTURE SemanticSegmentor detects no objects for --json. Give an --output.",
        ),
        ("--webcam", "--webcam needs a display, and DISPLAY is not set. Use --video-input."),
    ],
)
def test_mistakes(
    words: str, message: str, run: Run, images: Path, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    Path("other").mkdir()
    Path("other/0.png").touch()
    Path("a.gif").touch()
    Path("no.json").write_text('{"images": []}')
    same = [{"id": 5, "file_name": f"{k}.png"} for k in range(3)]
    Path("same.json").write_text(json.dumps({"images": same}))
    code, _ = run(*words.split())
    assert code.startswith(f"error: {message}")
    assert "\n" not in code
    assert not list(images.parent.glob("**/.unfinished-*"))
    assert not Path("out").exists()
    assert not list(images.parent.glob("f.*"))


@pytest.mark.parametrize("words", ["--output out", "--input a.jpg --webcam"])
def test_one_source(words: str, run: Run) -> None:
    assert run(*words.split())[0] == 2


def test_a_camera(run: Run, one_box: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are shown until q is pressed: here after the fifth."""
    shown: list[np.ndarray] = []
    camera = Mock()
    camera.read.return_value = True, np.zeros((48, 64, 3), np.uint8)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "VideoCapture", Mock(return_value=camera))
    monkeypatch.setattr(cv2, "namedWindow", Mock())
    monkeypatch.setattr(cv2, "imshow", lambda _, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) == 5 else -1)
    monkeypatch.setattr(cv2, "destroyAllWindows", Mock())
    code, _ = run("--webcam")
    assert code == 0
    assert len(shown) == 5
    assert all(frame.shape == (480, 640, 3) and frame.any() for frame in shown)
    cv2.VideoCapture.assert_called_once_with(0)
    camera.isOpened.return_value = False
    code, _ = run("--webcam")
    assert code == "error: --webcam needs a camera, and OpenCV finds none."
