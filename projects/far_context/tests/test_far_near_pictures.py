"""Far and near pictures: no surroundings of a figure tell its labels, and the whole picture does."""

import hashlib
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import generate
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from far_context.evaluation import disc_of
from far_context.pictures import KINDS as KINDS_OF_PICTURES
from far_context.pictures import (
    LAYOUTS,
    MARGIN,
    MODES,
    SIZE,
    SWAPPED,
    Layout,
    draw_pair,
    register_pictures,
    write_pictures,
)

from nl_detectron.errors import UserError

TRAIN, VAL = 40, 10
KINDS = ("instances", "person_keypoints")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    for mode in MODES:
        assert write_pictures(root, mode, train=TRAIN, val=VAL)
    register_pictures(root)
    return root


def by_disc(image: np.ndarray) -> str:
    """The category by the rule, from the color of the disc."""
    blue, _, red = image.reshape(-1, 3).T.astype(int)
    reds, blues = np.count_nonzero(red - blue > 100), np.count_nonzero(blue - red > 100)
    assert max(reds, blues) > 100 > 5 > min(reds, blues)
    return "front" if reds > blues else "back"


def by_shoulders(keypoints: np.ndarray) -> str:
    """The category by the keypoints: seen from the front, the left shoulder is at the right."""
    return "front" if keypoints[5, 0] > keypoints[6, 0] else "back"


def crop(image: np.ndarray, box: list[float], margin: int) -> np.ndarray:
    """A box (x, y, width, height) and a margin in pixels around it, as far as the picture goes."""
    x, y, width, height = box
    left, top = max(0, int(x) - margin), max(0, int(y) - margin)
    return image[top : int(np.ceil(y + height)) + margin, left : int(np.ceil(x + width)) + margin]


def labelled(folder: Path, kind: str, split: str = "train") -> list[tuple[np.ndarray, dict, str]]:
    """Image, annotation and category (by the keypoints, if it has them) of all figures of a split."""
    content = json.loads((folder / "annotations" / f"{kind}_{split}.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    images = {i["id"]: cv2.imread(str(folder / split / i["file_name"])) for i in content["images"]}
    figures = []
    for each in content["annotations"]:
        points = np.reshape(each.get("keypoints", []), (-1, 3))
        label = by_shoulders(points) if len(points) else names[each["category_id"]]
        figures.append((images[each["image_id"]], each, label))
    return figures


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["train", "val"])
def test_identical_crops_have_both_labels(root: Path, kind: str, split: str) -> None:
    """Out to half of the picture's side around a figure, in the files as they are read."""
    labels = defaultdict(list)
    figures = labelled(root / "shapes_far", kind, split)
    for image, annotation, label in figures:
        around = crop(image, annotation["bbox"], round(MARGIN * SIZE))
        labels[(around.shape, around.tobytes(), *annotation["bbox"])].append(label)
    assert len(labels) == len(figures) / 2
    assert all(sorted(both) == ["back", "front"] for both in labels.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES)
def test_the_disc_decides(root: Path, mode: str, kind: str) -> None:
    """It is all that is not grey; near, the crop within a sixth of the side has it."""
    figures = labelled(root / f"shapes_{mode}", kind)
    assert len(figures) > TRAIN
    area = np.pi * round(0.07 * SIZE) ** 2
    for image, annotation, label in figures:
        assert by_disc(image if mode == "far" else crop(image, annotation["bbox"], SIZE // 6)) == label
        discs = disc_of(image).sum() / area
        assert discs == pytest.approx(1 if mode == "far" else max(1, round(discs)), rel=0.05)


def test_a_pair_differs_only_in_its_labels(root: Path) -> None:
    """Masks, boxes and keypoints are the same, with left and right exchanged."""
    figures = defaultdict(list)
    for record in DatasetCatalog.get("keypoints_shapes_far_train"):
        figures[record["image_id"]] += record["annotations"]
    for pair in range(TRAIN // 2):
        for one, other in zip(figures[2 * pair], figures[2 * pair + 1], strict=True):
            assert (one["segmentation"], one["bbox"]) == (other["segmentation"], other["bbox"])
            keypoints = np.reshape(one["keypoints"], (17, 3))
            assert np.array_equal(keypoints[SWAPPED], np.reshape(other["keypoints"], (17, 3)))
            assert (keypoints[:, 2] == 2).all()


def test_swapping_is_what_a_flip_does(root: Path) -> None:
    metadata = MetadataCatalog.get("keypoints_shapes_far_train")
    swaps = dict(metadata.keypoint_flip_map) | {b: a for a, b in metadata.keypoint_flip_map}
    names = metadata.keypoint_names
    assert [names.index(swaps.get(name, name)) for name in names] == SWAPPED


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("side", [64, 160, 225, SIZE])
def test_a_far_disc_is_as_far_as_stated(side: int, layout: Layout) -> None:
    """Measured between the pixels that differ in a far pair and those of the figures."""
    for seed in range(20):
        (one, drawn), (other, _) = draw_pair(np.random.default_rng(seed), side, near=False, layout=layout)
        assert one.shape == (round(layout.height * side), side, 3)
        assert 1 <= len(drawn) <= layout.rows
        disc = (one != other).any(axis=2)
        figures = np.any([figure.mask for figure in drawn], axis=0)
        distances = cv2.distanceTransform((~disc).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert distances[figures].min() > MARGIN * side
        area = np.pi * round(layout.radius * side) ** 2
        assert disc.sum() == pytest.approx(area, rel=0.15)  # no part is cut off
        assert not figures[:, [0, -1]].any()
        assert not figures[[0, -1]].any()


def test_near_and_far_differ_only_in_the_place_of_the_disc() -> None:
    for seed in range(10):
        fars, nears = (draw_pair(np.random.default_rng(seed), SIZE, near=near) for near in (False, True))
        for (far, far_drawn), (near, near_drawn) in zip(fars, nears, strict=True):
            discs = np.ptp(far.astype(int), axis=2) > 100, np.ptp(near.astype(int), axis=2) > 100
            differ = (far != near).any(axis=2)
            assert differ.sum() > 100
            assert not (differ & ~discs[0] & ~discs[1]).any()
            for one, other in zip(far_drawn, near_drawn, strict=True):
                assert np.array_equal(one.mask, other.mask)
                assert np.array_equal(one.keypoints, other.keypoints)
                assert one.category == other.category
                assert not (one.mask & (discs[0] | discs[1])).any()


def test_the_order_of_a_pair_tells_nothing() -> None:
    """Which comes first is a coin's toss, for figures at either side, alone or not."""
    seen = Counter()
    for seed in range(100):
        (_, drawn), _ = draw_pair(np.random.default_rng([0, 0, seed]), 64, near=False)
        seen[drawn[0].category, drawn[0].keypoints[0, 0] < 32, len(drawn)] += 1
    assert 35 <= sum(count for key, count in seen.items() if key[0] == "front") <= 65
    assert len(seen) == 8


@pytest.mark.parametrize("mode", MODES)
def test_detectron2s_flip_keeps_the_rule(root: Path, mode: str, flipped: Callable) -> None:
    for image, figures in flipped(f"keypoints_shapes_{mode}_train"):
        for keypoints in figures.gt_keypoints.tensor.numpy():
            assert by_shoulders(keypoints) == by_disc(image)


def test_registered(root: Path) -> None:
    for mode in MODES:
        assert len(DatasetCatalog.get(f"shapes_{mode}_train")) == TRAIN
        assert len(DatasetCatalog.get(f"keypoints_shapes_{mode}_val")) == VAL
        assert MetadataCatalog.get(f"shapes_{mode}_val").thing_classes == ["front", "back"]
        assert MetadataCatalog.get(f"keypoints_shapes_{mode}_val").thing_classes == ["person"]


def test_the_pictures_are_those_of_the_results(root: Path, tmp_path: Path) -> None:
    """The generator is that of the README's trainings; a larger set begins with a smaller one."""
    write_pictures(tmp_path, "far", train=4, val=2)
    record = {"generator": 2, "train": 4, "val": 2, "size": 256, "seed": 0, "mode": "far"}
    assert json.loads((tmp_path / "shapes_far" / "generator.json").read_text()) == record
    first = tmp_path / "shapes_far" / "train" / f"{3:012d}.jpg"
    assert first.read_bytes() == (root / "shapes_far" / "train" / first.name).read_bytes()
    (image, _), _ = draw_pair(np.random.default_rng([0, 0, 0]), SIZE, near=False)
    assert hashlib.sha256(image.tobytes()).hexdigest()[:16] == "5b85d62c7d8eda4f"


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--train and --val must be even, .*; got 3 and 2"):
        write_pictures(tmp_path, "far", train=3, val=2)
    assert list(tmp_path.iterdir()) == []
    assert write_pictures(tmp_path, "far", train=2, val=2)
    assert not write_pictures(tmp_path, "far", train=2, val=2)
    with pytest.raises(UserError, match=r"holds another data set .*Remove it"):
        write_pictures(tmp_path, "far", train=2, val=2, seed=1)


def test_the_program(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["generate.py", *map(str, words)])
        generate.main()
        return capsys.readouterr().out

    drawn = run("--root", tmp_path, "--mode", "near", "--train", "2", "--val", "2")
    assert drawn == f"{tmp_path / 'shapes_near'} is drawn\n"
    name = f"shapes_near/val/{1:012d}.jpg"
    assert (tmp_path / name).read_bytes() == (root / name).read_bytes()
    for kind in KINDS_OF_PICTURES:
        file = tmp_path / f"{kind}.png"
        assert run("--preview", file, "--kind", kind) == f"{file}\n"
        picture = cv2.imread(str(file)).astype(int)
        for half in np.array_split(picture, 2, axis=1):  # far, near: with discs of both colors
            blue, _, red = half.transpose(2, 0, 1)
            assert np.count_nonzero(red - blue > 150) > 1000
            assert np.count_nonzero(blue - red > 150) > 1000
    with pytest.raises(SystemExit, match=r"^error: --preview .*far.doc: matplotlib cannot write '.doc'"):
        run("--preview", tmp_path / "far.doc")
    with pytest.raises(SystemExit, match=r"^error: .*No such file or directory: .*nowhere"):
        run("--preview", tmp_path / "nowhere" / "far.png")
