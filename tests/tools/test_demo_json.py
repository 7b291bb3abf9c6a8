"""tools/demo.py --json: COCO's results, their ids, and what is left of a run that is interrupted."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from pycocotools import mask as rle
from pycocotools.coco import COCO
from runs import KEYPOINT, MASK, SMALL, run_here
from test_demo import save_video

from nl_detectron import model_zoo
from nl_detectron.predictor import Predictor
from nl_detectron_cli import demo
from nl_detectron_cli.detecting import program
from nl_detectron_cli.detecting.predictions import Predictions

Run = Callable[..., object]
CLASSES = ("person", "circle", "square", "triangle")


def found_in(image: np.ndarray) -> Instances:
    """As many objects as the first pixel says, of scores 0.1, 0.2, ..., with masks and keypoints."""
    count, (height, width) = int(image[0, 0, 0]) % 10, image.shape[:2]
    draws = np.random.default_rng(count)
    found = Instances((height, width))
    found.pred_boxes = Boxes(
        torch.tensor(draws.random((count, 4)) * 20 + [0, 0, 20, 20], dtype=torch.float32)
    )
    found.scores = torch.arange(1, count + 1) / 10
    found.pred_classes = torch.arange(count) % len(CLASSES)
    found.pred_masks = torch.zeros(count, height, width, dtype=torch.bool)
    for k in range(count):
        found.pred_masks[k, k : 20 + k, 2 * k : 30] = True
    found.pred_keypoints = torch.from_numpy(draws.random((count, 17, 3))).float()
    return found


class Finder(Predictor):
    """A predictor that detects `found_in`, and is interrupted before it detects in `last` more images."""

    report, last, seen = "", 99, 0

    def __init__(self, cfg: CfgNode, allow_mismatch: bool) -> None:
        self.cfg, self.metadata = (
            cfg,
            Metadata(thing_classes=CLASSES, keypoint_names=[str(k) for k in range(17)]),
        )
        Finder.seen = 0

    def batch(self, images: Sequence[np.ndarray]) -> list[dict[str, Instances]]:
        Finder.seen += len(images)
        if Finder.seen > Finder.last:
            raise KeyboardInterrupt
        found = [found_in(image) for image in images]
        least = self.cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        return [{"instances": instances[instances.scores > least]} for instances in found]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run the tool in an empty folder; its exit code or its last line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, config: str = MASK) -> object:
        monkeypatch.setattr(sys, "argv", ["demo.py", "--config-file", config, *map(str, words)])
        np.random.seed(0)
        try:
            demo.main()
        except SystemExit as stopped:
            return stopped.code
        return 0

    return run


@pytest.fixture
def finder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "Predictor", Finder)
    monkeypatch.setattr(Finder, "last", 99)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with images of two sizes, which hold 4, 0, 7, 1 and 3 objects."""
    folder = tmp_path / "images"
    for k, count in enumerate([4, 0, 7, 1, 3]):
        save(folder / f"{k}.png", count, 50 + k % 2)
    return folder


def save(path: Path, count: int, height: int = 40) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.full((height, 60, 3), count, np.uint8))[1])


def load(path: str = "found.json") -> tuple[COCO, COCO]:
    """The images, and what is detected in them."""
    truth = COCO(str(Path(path).with_suffix(".images.json")))
    return truth, truth.loadRes(path)


@pytest.mark.slow
@pytest.mark.parametrize("config", [MASK, KEYPOINT], ids=["mask", "keypoint"])
def test_it_is_what_an_evaluation_has(config: str, run: Run, shapes_root: Path, tmp_path: Path) -> None:
    """To the last digit, so that AP is the same; with the ids of the truth."""
    cfg, weights = model_zoo.get_config(config), tmp_path / "model.pth"
    cfg.MODEL.DEVICE = "cpu"
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    keys = [*SMALL, "MODEL.WEIGHTS", str(weights), "DATALOADER.NUM_WORKERS", "0"]
    assert run("--input", shapes_root / "shapes" / "val", "--json", "found.json", *keys, config=config) == 0
    run_here("--config-file", config, "--eval-only", *keys, "OUTPUT_DIR", str(tmp_path))
    found = json.loads(Path("found.json").read_text())
    assert len(found) > 100
    assert found == json.loads((tmp_path / "inference" / "coco_instances_results.json").read_text())
    kind = "person_keypoints" if config == KEYPOINT else "instances"
    truth = COCO(str(shapes_root / "shapes" / "annotations" / f"{kind}_val.json"))
    assert len(truth.loadRes("found.json").anns) == len(found)
    assert len(load()[1].anns) == len(found)
    assert {(each["id"], each["name"]) for each in truth.dataset["categories"]} == {
        (each["id"], each["name"]) for each in load()[0].dataset["categories"]
    }


def test_masks_and_keypoints(run: Run, finder: None, images: Path) -> None:
    assert run("--input", images, "--json", "new/found.json") == 0
    truth, found = load("new/found.json")
    assert [truth.imgs[k] for k in range(5)] == [
        {"id": k, "file_name": f"{k}.png", "height": 50 + k % 2, "width": 60} for k in range(5)
    ]
    for k in range(5):
        expected = found_in(cv2.imread(str(images / f"{k}.png")))
        expected = expected[expected.scores > 0.05]
        results = found.imgToAnns[k]
        assert len(results) == len(expected)
        for result, mask, points in zip(results, expected.pred_masks, expected.pred_keypoints, strict=True):
            assert (rle.decode(result["segmentation"]) == mask.numpy()).all()
            moved = np.reshape(result["keypoints"], (17, 3)) + np.float64([0.5, 0.5, 0])
            np.testing.assert_allclose(moved, points, atol=1e-6)
    assert not list(Path("new").glob("*.part"))


def test_pictures_beside_it_show_their_own_threshold(run: Run, finder: None, images: Path) -> None:
    """They are those without --json, and it is that without them."""
    words = ("--input", images, "--confidence-threshold", 0.25)
    assert run(*words, "--output", "alone") == 0
    assert run(*words, "--json", "alone.json") == 0
    assert run(*words, "--output", "both", "--json", "both.json") == 0
    assert Path("alone.json").read_bytes() == Path("both.json").read_bytes()
    assert len(load("both.json")[1].anns) == 15
    for path in images.iterdir():
        assert Path("alone", path.name).read_bytes() == Path("both", path.name).read_bytes()
    assert run(*words, "--json", "both.json", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.55) == 0
    assert len(load("both.json")[1].anns) == 2


def test_broken_images_are_left_out(run: Run, finder: None, images: Path) -> None:
    (images / "1.png").write_bytes(b"")
    assert (
        run("--input", images, "--json", "found.json", "--batch", 2)
        == "error: Skipped 1 of 5 images (see above)."
    )
    truth, found = load()
    assert sorted(truth.imgs) == [0, 2, 3, 4]
    assert len(found.anns) == 15


def test_nothing_detected(run: Run, finder: None, images: Path) -> None:
    """COCO.loadRes takes no empty list, but it is one."""
    assert run("--input", images / "1.png", "--json", "found.json") == 0
    assert json.loads(Path("found.json").read_text()) == []
    assert list(COCO("found.images.json").imgs) == [1]


@pytest.mark.parametrize("batch", [1, 2])
def test_it_goes_on_where_it_was(
    batch: int, run: Run, finder: None, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures too. An older result stays until the new one is there."""
    words = ("--input", images, "--batch", batch)
    assert run(*words, "--json", "whole.json", "--output", "whole") == 0
    Path("found.json").write_text("[]")
    monkeypatch.setattr(Finder, "last", 4)
    assert run(*words, "--json", "found.json", "--output", "pictures") == 130
    assert Path("found.json").read_text() == "[]"
    with Path("found.json.part").open("ab") as file:
        file.write(b'{"image": {"id": 9')
    monkeypatch.setattr(Finder, "last", 99)
    assert run(*words, "--json", "found.json", "--output", "pictures") == 0
    assert Finder.seen < 5
    for end in (".json", ".images.json"):
        assert Path(f"found{end}").read_bytes() == Path(f"whole{end}").read_bytes()
    assert len(list(Path("pictures").iterdir())) == 5
    assert not Path("found.json.part").exists()


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_part_may_end_anywhere(batch: int, tmp_path: Path) -> None:
    images = {k: np.full((30, 40, 3), k % 3, np.uint8) for k in range(8)}

    def predict(count: int) -> bytes:
        predictions = Predictions(tmp_path / "found.json", [{"id": k} for k in range(4)], {}, None, batch)
        remaining = [k for k in images if str(k) not in predictions.done]
        assert len(predictions.done) % batch == 0
        for k in remaining[:count]:
            predictions.add(str(k), k, images[k], {"instances": found_in(images[k])})
        if count < 8:
            return (tmp_path / "found.json.part").read_bytes()
        with predictions:
            pass
        return (tmp_path / "found.json").read_bytes()

    whole, part = predict(8), predict(7)
    for size in range(0, len(part) + 1, len(part) // 9):
        (tmp_path / "found.json.part").write_bytes(part[:size])
        assert predict(8) == whole


@pytest.fixture
def interrupted(run: Run, finder: None, images: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(Finder, "last", 3)
    Path("model.pth").write_bytes(b"1")
    assert run("--input", images, "--json", "found.json", "MODEL.WEIGHTS", "model.pth") == 130
    monkeypatch.setattr(Finder, "last", 99)
    part = Path("found.json.part")
    before = part.read_bytes()
    yield part
    assert part.read_bytes() == before


@pytest.mark.parametrize("change", ["weights", "config", "pictures", "folder", "ids"])
def test_a_part_of_another_run_is_refused(change: str, interrupted: Path, run: Run, images: Path) -> None:
    flags, keys = [], []
    if change == "weights":
        Path("model.pth").write_bytes(b"22")
    elif change == "config":
        keys = ["INPUT.MIN_SIZE_TEST", 99]
    elif change == "pictures":
        flags = ["--output", "pictures"]
    elif change == "folder":
        images = images.rename("others")
    else:
        save(images / "a.png", 1)  # now not all names have a number
    words = ("--input", images, "--json", "found.json", *flags, "MODEL.WEIGHTS", "model.pth", *keys)
    refusal = (
        "'found.json.part' is of another model, config or input. Remove it to start anew, or give another"
    )
    assert run(*words) == f"error: {refusal} --json."


@pytest.mark.parametrize("output", [(), ("--output", "drawn.mp4")])
def test_a_video(
    output: Sequence[str], run: Run, finder: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its frames count from 0. With pictures it starts anew after an interruption."""
    frames = [np.full((48, 64, 3), level, np.uint8) for level in (3, 103, 203, 53, 153)]
    save_video(tmp_path / "video.avi", frames, "MJPG")
    words = ("--video-input", "video.avi", "--json", "found.json", "--batch", 2, *output)
    monkeypatch.setattr(Finder, "last", 4)
    assert run(*words) == 130
    monkeypatch.setattr(Finder, "last", 99)
    assert run(*words) == 0
    assert Finder.seen == (5 if output else 3)
    truth, found = load()
    assert [truth.imgs[k]["file_name"] for k in range(5)] == [f"video.avi#{k}" for k in range(5)]
    assert {each["image_id"] for each in found.anns.values()} == set(range(5))
    assert Path("drawn.mp4").exists() == bool(output)
