"""The drawn shapes: deterministic, valid COCO, complete or not there at all, and registered."""

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from nl_detectron_shapes import CATEGORIES, coco, register_drawn, write_shapes
from nl_detectron_shapes.drawing import draw_image
from pycocotools.coco import COCO

from nl_detectron.errors import UserError

GENERATE = Path(__file__).parents[3] / "datasets" / "generate_shapes.py"
TRAIN, VAL = 40, 2
NAMES = [f"{kind}drawn_here_{split}" for kind in ("", "keypoints_") for split in ("train", "val")]


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def annotations(folder: Path, kind: str = "instances", split: str = "train") -> dict:
    return json.loads((folder / "annotations" / f"{kind}_{split}.json").read_text())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "shapes"
    assert write_shapes(folder, train=TRAIN, val=VAL)
    return folder


@pytest.fixture
def _forgotten() -> Iterator[None]:
    yield
    for name in set(NAMES) & set(DatasetCatalog.list()):
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_same_seed_same_files(shapes: Path, tmp_path: Path) -> None:
    """A larger set begins with the smaller one; another seed and the other split are other images."""
    small, again, other = tmp_path / "small", tmp_path / "again", tmp_path / "other"
    for folder, seed in ((small, 0), (again, 0), (other, 1)):
        write_shapes(folder, train=5, val=VAL, seed=seed)
    assert files(again) == files(small)
    images = [name for name in files(small) if name.endswith(".jpg")]
    assert len(images) == 5 + VAL
    assert all(files(small)[name] == files(shapes)[name] for name in images)
    first = [small / "train" / f"{0:012d}.jpg", other / "train" / f"{0:012d}.jpg"]
    first.append(small / "val" / f"{0:012d}.jpg")
    assert len({path.read_bytes() for path in first}) == 3


def test_holds_what_coco_holds(shapes: Path) -> None:
    instances, people = annotations(shapes), annotations(shapes, "person_keypoints")
    assert [category["name"] for category in instances["categories"]] == list(CATEGORIES)
    assert {a["category_id"] for a in instances["annotations"]} == {1, 2, 3, 4}
    crowds = [a for a in instances["annotations"] if a["iscrowd"]]
    assert crowds
    assert all(isinstance(a["segmentation"], dict) for a in crowds)
    assert all(isinstance(a["segmentation"], list) for a in instances["annotations"] if not a["iscrowd"])
    (person,) = people["categories"]
    assert len(person["keypoints"]) == 17
    visibility = {v for a in people["annotations"] for v in a["keypoints"][2::3]}
    assert visibility == {0, 1, 2}
    for a in people["annotations"]:
        points = np.array(a["keypoints"]).reshape(17, 3)
        assert a["num_keypoints"] == np.count_nonzero(points[:, 2])
        assert not points[points[:, 2] == 0].any()
        assert points[:, :2].min() >= 0
        assert points[:, :2].max() < 160
    for image in [*instances["images"], *people["images"]]:
        pixels = cv2.imread(str(shapes / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (160, 160, 3)


def test_annotations_agree_with_the_pixels(shapes: Path) -> None:
    """A mask is what was painted (but for the holes, which a polygon fills), and its box encloses it."""
    truth = COCO(str(shapes / "annotations" / "instances_train.json"))
    for image_id in truth.getImgIds():
        _, drawn = draw_image(np.random.default_rng([0, 0, image_id]), 160)
        for annotation, painted in zip(truth.imgToAnns[image_id], drawn, strict=True):
            mask = truth.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"] > 0
            if annotation["iscrowd"]:
                assert np.array_equal(mask, painted.mask)
            visible = fill_holes(painted.mask)
            assert np.count_nonzero(mask & visible) > 0.97 * np.count_nonzero(mask | visible)
            x, y, width, height = annotation["bbox"]
            rows, columns = np.nonzero(painted.mask)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert np.abs(np.array(box) - [x, y, x + width, y + height]).max() <= 1


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes filled: all that the background does not reach from outside."""
    outside = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] != 2


def test_objects_are_where_their_masks_are() -> None:
    """Inside a mask the image has the object's dark color, outside of all the light background."""
    for seed in range(20):
        image, drawn = draw_image(np.random.default_rng(seed), 160)
        occupied = np.any([d.mask for d in drawn], axis=0)
        assert sum(d.mask.astype(int) for d in drawn).max() == 1
        assert image[~occupied].min() > 160
        for d in drawn:
            inside = cv2.erode(d.mask.astype(np.uint8), np.ones((3, 3))).astype(bool)
            assert np.median(image[inside], axis=0).max() < 165 if inside.any() else True
            if d.keypoints is not None:
                x, y, visibility = d.keypoints.T
                assert d.mask[y, x][visibility == 2].all()
                assert not d.mask[y, x][visibility == 1].any()


def test_left_is_at_the_right_of_the_image() -> None:
    """Figures face the viewer: COCO's left shoulder, hip and eye have the larger x."""
    drawn = [d for seed in range(30) for d in draw_image(np.random.default_rng(seed), 160)[1]]
    people = [d.keypoints for d in drawn if d.keypoints is not None]
    for left, right in ((1, 2), (5, 6), (11, 12)):
        seen = [k for k in people if k[left, 2] and k[right, 2]]
        assert seen
        assert all(k[left, 0] > k[right, 0] for k in seen)


def test_the_same_set_is_kept_and_another_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    assert write_shapes(folder, train=2, val=1)
    before = files(folder)
    assert not write_shapes(folder, train=2, val=1)
    with pytest.raises(UserError, match="holds another data set .*Remove it"):
        write_shapes(folder, train=3, val=1)
    assert files(folder) == before
    (folder / "train" / f"{1:012d}.jpg").unlink()
    with pytest.raises(UserError, match="holds another data set"):
        write_shapes(folder, train=2, val=1)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_run_leaves_nothing(
    error: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def interrupted(*args: object) -> tuple:
        drawn.append(args)
        if len(drawn) == 3:
            raise error
        return draw_image(*args)

    monkeypatch.setattr(coco, "draw_image", interrupted)
    with pytest.raises(error):
        write_shapes(tmp_path / "shapes", train=5, val=5)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
@pytest.mark.slow
def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    command = [sys.executable, str(GENERATE), "--root", str(tmp_path), "--train", "100000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(1800):
            if list(tmp_path.glob(".shapes-*/shapes/train/*9.jpg")):
                break
            time.sleep(0.1)
        process.kill()
    assert list(tmp_path.glob(".shapes-*/shapes/train/*.jpg"))
    assert not (tmp_path / "shapes").exists()
    assert write_shapes(tmp_path / "shapes", train=2, val=1)


def generate(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["generate_shapes.py", *map(str, words)])
    runpy.run_path(str(GENERATE), run_name="__main__")


def test_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--root", tmp_path, "--train", 2, "--val", 1, "--size", 64]
    for said in ("is drawn", "holds this data set already"):
        generate(monkeypatch, *words)
        assert capsys.readouterr().out == f"{tmp_path / 'shapes'} {said}\n"
    record = json.loads((tmp_path / "shapes" / "generator.json").read_text())
    assert record == {"generator": 2, "train": 2, "val": 1, "size": 64, "seed": 0}


@pytest.mark.parametrize("words", [("--train", "0"), ("--size", "8"), ("--seed", "-1")])
def test_bad_arguments(words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="^error: --train and --val must be at least 1, .*[^\n]$"):
        generate(monkeypatch, "--root", tmp_path, *words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_forgotten")
def test_registered(shapes: Path, tmp_path: Path) -> None:
    """Called again, it moves them."""
    for folder in (tmp_path, shapes):
        register_drawn("drawn_here", folder, CATEGORIES)
    for name, count in (("drawn_here_train", TRAIN), ("keypoints_drawn_here_val", VAL)):
        records = DatasetCatalog.get(name)
        assert len(records) == count
        assert Path(records[0]["file_name"]).is_file()
        assert MetadataCatalog.get(name).evaluator_type == "coco"
    assert MetadataCatalog.get("drawn_here_val").thing_classes == list(CATEGORIES)
    assert len(MetadataCatalog.get("keypoints_drawn_here_train").keypoint_names) == 17


@pytest.mark.usefixtures("_forgotten")
def test_a_name_that_is_taken_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    DatasetCatalog.register("drawn_here_train", lambda: ["mine"])
    register_drawn("drawn_here", tmp_path, CATEGORIES)
    assert DatasetCatalog.get("drawn_here_train") == ["mine"]
    assert "drawn_here_val" in DatasetCatalog.list()
    assert "drawn_here_train is another data set" in caplog.text


def test_importing_registers_the_shapes() -> None:
    names = {f"{kind}shapes_{split}" for kind in ("", "keypoints_") for split in ("train", "val")}
    assert names <= set(DatasetCatalog.list())
