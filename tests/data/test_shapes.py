"""The drawn data set: deterministic, valid COCO, whole or not there at all."""

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from nl_detectron.data.shapes import CATEGORIES, draw_image
from pycocotools.coco import COCO

from nl_detectron.data import coco_format, write_shapes

GENERATE = Path(__file__).parents[2] / "datasets" / "generate_shapes.py"


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def annotations(folder: Path, kind: str = "instances", split: str = "train") -> dict:
    return json.loads((folder / "annotations" / f"{kind}_{split}.json").read_text())


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root") / "shapes"
    assert write_shapes(folder, train=60, val=20)
    return folder


def test_same_seed_same_files(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "again", train=60, val=20)
    assert files(tmp_path / "again") == files(shapes)


def test_another_seed_and_the_other_split_are_other_images(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "other", train=1, val=1, seed=1)
    first = [folder / "train" / f"{0:012d}.jpg" for folder in (shapes, tmp_path / "other")]
    first.append(shapes / "val" / first[0].name)
    assert len({path.read_bytes() for path in first}) == 3


def test_a_larger_set_begins_with_the_smaller(shapes: Path, tmp_path: Path) -> None:
    write_shapes(tmp_path / "small", train=5, val=2)
    small, large = files(tmp_path / "small"), files(shapes)
    images = [name for name in small if name.endswith(".jpg")]
    assert len(images) == 7
    assert all(small[name] == large[name] for name in images)


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


def test_annotations_agree_with_the_pixels(shapes: Path) -> None:
    """A mask is what was painted (but for the holes, which a polygon fills), and its box encloses it."""
    coco = COCO(str(shapes / "annotations" / "instances_train.json"))
    for image_id in coco.getImgIds():
        _, drawn = draw_image(np.random.default_rng([0, 0, image_id]), 160)
        for annotation, painted in zip(coco.imgToAnns[image_id], drawn, strict=True):
            mask = coco.annToMask(annotation).astype(bool)
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


@pytest.mark.parametrize("kind", ["instances", "person_keypoints"])
def test_images_have_the_stated_size(shapes: Path, kind: str) -> None:
    for image in annotations(shapes, kind)["images"]:
        pixels = cv2.imread(str(shapes / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (160, 160, 3)


def test_objects_are_where_their_masks_are() -> None:
    """Inside a mask the image has the object's dark colour, outside of all the light background."""
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
    people = [
        d.keypoints
        for seed in range(30)
        for d in draw_image(np.random.default_rng(seed), 160)[1]
        if d.keypoints is not None
    ]
    for left, right in ((1, 2), (5, 6), (11, 12)):
        seen = [k for k in people if k[left, 2] and k[right, 2]]
        assert seen
        assert all(k[left, 0] > k[right, 0] for k in seen)


def test_registered(shapes_root: Path) -> None:
    for name, count in (("shapes_train", 12), ("keypoints_shapes_val", 6)):
        records = DatasetCatalog.get(name)
        assert len(records) == count
        assert Path(records[0]["file_name"]).is_file()
        assert MetadataCatalog.get(name).evaluator_type == "coco"
    assert MetadataCatalog.get("shapes_val").thing_classes == list(CATEGORIES)
    assert len(MetadataCatalog.get("keypoints_shapes_train").keypoint_names) == 17


def test_the_same_set_is_kept_and_another_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "shapes"
    assert write_shapes(folder, train=2, val=1)
    before = files(folder)
    assert not write_shapes(folder, train=2, val=1)
    with pytest.raises(FileExistsError, match="holds another data set .*remove it"):
        write_shapes(folder, train=3, val=1)
    assert files(folder) == before
    (folder / "train" / f"{1:012d}.jpg").unlink()
    with pytest.raises(FileExistsError, match="holds another data set"):
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

    monkeypatch.setattr(coco_format, "draw_image", interrupted)
    with pytest.raises(error):
        write_shapes(tmp_path / "shapes", train=5, val=5)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    command = [sys.executable, str(GENERATE), "--root", str(tmp_path), "--train", "100000"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            if list(tmp_path.glob(".shapes-*/shapes/train/*9.jpg")):
                break
            time.sleep(0.1)
        process.kill()
    assert list(tmp_path.glob(".shapes-*/shapes/train/*.jpg"))
    assert not (tmp_path / "shapes").exists()
    assert write_shapes(tmp_path / "shapes", train=2, val=1)


@pytest.mark.parametrize("arguments", [("--train", "0"), ("--size", "8"), ("--seed", "-1")])
def test_bad_arguments(arguments: tuple[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", str(GENERATE), "--root", str(tmp_path), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: --train and --val must be at least 1")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_taken_is_left_alone() -> None:
    program = (
        "from detectron2.data import DatasetCatalog\n"
        "DatasetCatalog.register('shapes_train', lambda: ['mine'])\n"
        "import nl_detectron\n"
        "print(DatasetCatalog.get('shapes_train'), 'shapes_val' in DatasetCatalog.list())\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "['mine'] True\n"
    assert "shapes_train is another data set" in result.stderr
