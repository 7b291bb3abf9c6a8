"""Far and near pictures: what cannot be told from a figure's surroundings, and can from the whole picture."""

import json
import runpy
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.data.transforms import RandomFlip
from nl_detectron.data.far import MARGIN, draw_pair

from nl_detectron.data import register_shapes, write_shapes
from nl_detectron.errors import ArgumentError

GENERATE = Path(__file__).parents[2] / "datasets" / "generate_shapes.py"
SIDE = 256
TRAIN, VAL = 40, 10
LEFT_SHOULDER, RIGHT_SHOULDER = 5, 6


@pytest.fixture(scope="module")
def root(shapes_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("root")
    for mode in ("far", "near"):
        assert write_shapes(root / f"shapes_{mode}", train=TRAIN, val=VAL, size=SIDE, mode=mode)
    register_shapes(root)
    yield root
    register_shapes(shapes_root)


def decoded(image: np.ndarray) -> str:
    """The category by the rule, from the colour of the disc."""
    blue, _, red = image.reshape(-1, 3).T.astype(int)
    reds, blues = np.count_nonzero(red - blue > 100), np.count_nonzero(blue - red > 100)
    assert max(reds, blues) > 100 > 5 > min(reds, blues)
    return "front" if reds > blues else "back"


def facing(keypoints: np.ndarray) -> str:
    """The category by the keypoints: who faces us has the left shoulder at the right of the picture."""
    return "front" if keypoints[LEFT_SHOULDER, 0] > keypoints[RIGHT_SHOULDER, 0] else "back"


def crop(image: np.ndarray, box: list[float], margin: int) -> np.ndarray:
    """A box (x, y, width, height) and so many pixels around it, as far as the picture goes."""
    x, y, width, height = box
    left, top = max(0, int(x) - margin), max(0, int(y) - margin)
    return image[top : int(np.ceil(y + height)) + margin, left : int(np.ceil(x + width)) + margin]


def annotated(folder: Path, kind: str, split: str = "train") -> list[tuple[np.ndarray, dict, str]]:
    """Image, annotation and category, or for keypoints what they mean, of all instances of a split."""
    content = json.loads((folder / "annotations" / f"{kind}_{split}.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {i["id"]: cv2.imread(str(folder / split / i["file_name"])) for i in content["images"]}
    labelled = []
    for annotation in content["annotations"]:
        label = names[annotation["category_id"]]
        if kind == "person_keypoints":
            assert label == "person"
            label = facing(np.reshape(annotation["keypoints"], (17, 3)))
        labelled.append((images[annotation["image_id"]], annotation, label))
    return labelled


@pytest.mark.parametrize("kind", ["instances", "person_keypoints"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_identical_crops_carry_both_labels(root: Path, kind: str, split: str) -> None:
    """Out to half of the picture's side around a figure, in the files as they are read."""
    labels = defaultdict(list)
    instances = annotated(root / "shapes_far", kind, split)
    for image, annotation, label in instances:
        around = crop(image, annotation["bbox"], round(MARGIN * SIDE))
        labels[around.shape, around.tobytes(), *annotation["bbox"]].append(label)
    assert len(labels) == len(instances) / 2
    assert all(sorted(both) == ["back", "front"] for both in labels.values())


@pytest.mark.parametrize("kind", ["instances", "person_keypoints"])
@pytest.mark.parametrize("mode", ["far", "near"])
def test_the_whole_picture_decides(root: Path, mode: str, kind: str) -> None:
    instances = annotated(root / f"shapes_{mode}", kind)
    assert len(instances) > TRAIN
    assert [decoded(image) for image, _, _ in instances] == [label for _, _, label in instances]


def test_near_a_crop_decides(root: Path) -> None:
    """The disc is within a sixth of the side around a figure."""
    for image, annotation, label in annotated(root / "shapes_near", "instances"):
        assert decoded(crop(image, annotation["bbox"], SIDE // 6)) == label


def test_a_pair_differs_in_its_labels_only(root: Path) -> None:
    """Masks, boxes and keypoints are the same, with left and right exchanged."""
    flip = dict(MetadataCatalog.get("keypoints_shapes_far_train").keypoint_flip_map)
    names = MetadataCatalog.get("keypoints_shapes_far_train").keypoint_names
    exchanged = [names.index({**flip, **{b: a for a, b in flip.items()}}.get(name, name)) for name in names]
    by_image = defaultdict(list)
    for record in DatasetCatalog.get("keypoints_shapes_far_train"):
        for annotation in record["annotations"]:
            by_image[record["image_id"]].append(annotation)
    for pair in range(TRAIN // 2):
        for one, other in zip(by_image[2 * pair], by_image[2 * pair + 1], strict=True):
            assert one["segmentation"] == other["segmentation"]
            assert one["bbox"] == other["bbox"]
            keypoints = np.reshape(one["keypoints"], (17, 3))
            assert np.array_equal(keypoints[exchanged], np.reshape(other["keypoints"], (17, 3)))
            assert (keypoints[:, 2] == 2).all()


@pytest.mark.parametrize("side", [64, 160, 225, SIDE])
def test_the_disc_is_as_far_as_stated(side: int) -> None:
    """Measured between the pixels that differ in a far pair and those of the figures."""
    for seed in range(25):
        (one, drawn), (other, _) = draw_pair(np.random.default_rng(seed), side, near=False)
        disc = (one != other).any(axis=2)
        figures = np.any([figure.mask for figure in drawn], axis=0)
        distances = cv2.distanceTransform((~disc).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert distances[figures].min() > MARGIN * side
        assert not figures[:, [0, -1]].any()
        assert not figures[[0, -1]].any()


def test_near_and_far_differ_in_the_discs_place_only() -> None:
    for seed in range(25):
        fars, nears = (draw_pair(np.random.default_rng(seed), SIDE, near=near) for near in (False, True))
        for (far, far_drawn), (near, near_drawn) in zip(fars, nears, strict=True):
            colourful = [np.ptp(image.astype(int), axis=2) > 100 for image in (far, near)]
            differ = (far != near).any(axis=2)
            assert differ.sum() > 100
            assert not (differ & ~colourful[0] & ~colourful[1]).any()
            for one, other in zip(far_drawn, near_drawn, strict=True):
                assert np.array_equal(one.mask, other.mask)
                assert np.array_equal(one.keypoints, other.keypoints)
                assert one.category == other.category
                assert not (one.mask & (colourful[0] | colourful[1])).any()


def test_the_order_of_a_pair_tells_nothing() -> None:
    """Which comes first is a coin's toss, for figures at either side, alone or not."""
    seen = Counter()
    for seed in range(100):
        (_, drawn), _ = draw_pair(np.random.default_rng([0, 0, seed]), 64, near=False)
        seen[drawn[0].category, drawn[0].keypoints[0, 0] < 32, len(drawn)] += 1
    assert 35 <= sum(count for key, count in seen.items() if key[0] == "front") <= 65
    assert len(seen) == 8


@pytest.mark.parametrize("mode", ["far", "near"])
def test_detectron2s_flip_keeps_the_rule(root: Path, mode: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.KEYPOINT_ON = True
    cfg.DATASETS.TRAIN = (f"keypoints_shapes_{mode}_train",)
    mapper = DatasetMapper(cfg, augmentations=[RandomFlip(prob=1.0)])
    for record in DatasetCatalog.get(cfg.DATASETS.TRAIN[0]):
        flipped = mapper(record)
        image = flipped["image"].permute(1, 2, 0).numpy()
        assert np.array_equal(image[:, ::-1], cv2.imread(record["file_name"]))
        for keypoints in flipped["instances"].gt_keypoints.tensor.numpy():
            assert facing(keypoints) == decoded(image)


def test_registered(root: Path) -> None:
    for mode in ("far", "near"):
        assert len(DatasetCatalog.get(f"shapes_{mode}_train")) == TRAIN
        assert len(DatasetCatalog.get(f"keypoints_shapes_{mode}_val")) == VAL
        assert MetadataCatalog.get(f"shapes_{mode}_val").thing_classes == ["front", "back"]
        assert MetadataCatalog.get(f"keypoints_shapes_{mode}_val").thing_classes == ["person"]
        record = DatasetCatalog.get(f"shapes_{mode}_val")[0]
        assert Path(record["file_name"]).parent == root / f"shapes_{mode}" / "val"


def test_seeded_and_a_larger_set_begins_with_the_smaller(root: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        write_shapes(tmp_path / str(seed), train=4, val=2, size=SIDE, seed=seed, mode="far")
    for name in (f"train/{3:012d}.jpg", f"val/{1:012d}.jpg"):
        first = (root / "shapes_far" / name).read_bytes()
        assert (tmp_path / "0" / name).read_bytes() == first
        assert (tmp_path / "1" / name).read_bytes() != first


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ArgumentError, match=r"^--train and --val must be even; got \(3, 2\). The pictures of"
    ):
        write_shapes(tmp_path / "odd", train=3, val=2, mode="far")
    with pytest.raises(ArgumentError, match="^--mode must be one of plain, far, near; got 'afar'"):
        write_shapes(tmp_path / "afar", train=2, val=2, mode="afar")
    assert list(tmp_path.iterdir()) == []
    assert write_shapes(tmp_path / "set", train=2, val=2, mode="far")
    assert not write_shapes(tmp_path / "set", train=2, val=2, mode="far")
    with pytest.raises(FileExistsError, match="holds another data set .*remove it"):
        write_shapes(tmp_path / "set", train=2, val=2, mode="near")


@pytest.fixture
def generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run datasets/generate_shapes.py in this process."""

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", [str(GENERATE), "--root", str(tmp_path), *arguments])
        runpy.run_path(str(GENERATE), run_name="__main__")

    return run


def test_the_command(
    generate: Callable[..., None], root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate("--mode", "far", "--train", "2", "--val", "2")
    assert capsys.readouterr().out == f"{tmp_path / 'shapes_far'} is drawn\n"
    for name in (f"train/{0:012d}.jpg", f"val/{1:012d}.jpg"):
        assert (tmp_path / "shapes_far" / name).read_bytes() == (root / "shapes_far" / name).read_bytes()


def test_the_preview(
    generate: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "far.png"
    generate("--preview", str(file))
    assert capsys.readouterr().out == f"{file}\n"
    picture = cv2.imread(str(file)).astype(int)
    for half in np.array_split(picture, 2, axis=1):  # far, near: with discs of both colours
        blue, _, red = half.transpose(2, 0, 1)
        assert np.count_nonzero(red - blue > 150) > 1000
        assert np.count_nonzero(blue - red > 150) > 1000
    with pytest.raises(SystemExit, match="^error: .*far.doc cannot be written: ValueError: Format 'doc'"):
        generate("--preview", str(tmp_path / "far.doc"))
    with pytest.raises(SystemExit, match="^error: .*No such file or directory: .*nowhere"):
        generate("--preview", str(tmp_path / "nowhere" / "far.png"))
    assert list(tmp_path.iterdir()) == [file]
