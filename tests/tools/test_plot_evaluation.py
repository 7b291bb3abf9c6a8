"""tools/plot_evaluation.py: curves and counts of a few boxes, by hand; its files; mistakes in one line."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import plot_evaluation
import pytest
from detectron2.data import MetadataCatalog
from evaluation_plots.figures import plot_confusion, plot_curves
from evaluation_plots.measures import count_confusions, precision_of
from made_up_runs import config_with
from pycocotools.coco import COCO
from runs import refusal

Tool = Callable[..., None]
RESULTS = "coco_instances_results.json"


@pytest.fixture
def tool(shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Run it, with plots in tmp_path / "plots"."""

    def run(*words: object) -> None:
        argv = ["plot_evaluation.py", "--output", tmp_path / "plots", *words]
        monkeypatch.setattr(sys, "argv", [*map(str, argv)])
        plot_evaluation.main()

    return run


@pytest.fixture
def truth() -> COCO:
    """One image with two cats, a dog and a crowd of dogs; no bird."""
    boxes = {1: (2, [0, 0, 10, 10], 0), 2: (2, [20, 0, 10, 10], 0)}
    boxes |= {3: (5, [40, 0, 10, 10], 0), 4: (5, [0, 50, 100, 50], 1)}
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 7, "height": 100, "width": 100, "file_name": "7.jpg"}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 5, "name": "dog"}, {"id": 9, "name": "bird"}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": category, "bbox": box, "area": 100, "iscrowd": crowd}
            for k, (category, box, crowd) in boxes.items()
        ],
    }
    coco.createIndex()
    return coco


def detection(category: int, box: list[float], score: float) -> dict[str, object]:
    return {"image_id": 7, "category_id": category, "bbox": box, "score": score}


def test_confusions_by_hand(truth: COCO) -> None:
    detections = [
        detection(2, [0, 0, 10, 8], 0.9),  # the first cat, with an IoU of 0.8
        detection(5, [0, 0, 10, 10], 0.95),  # on it too, of the wrong category: background
        detection(5, [20, 0, 10, 10], 0.6),  # the second cat
        detection(9, [70, 0, 10, 10], 0.7),  # nothing
        detection(5, [50, 60, 10, 10], 0.8),  # in the crowd of dogs: not counted
        detection(2, [30, 60, 10, 10], 0.8),  # a cat there: background
        detection(5, [40, 0, 10, 10], 0.4),  # the dog, with too low a score
    ]
    rows = {"cat": [1, 1, 0, 0], "dog": [0, 0, 0, 1], "bird": [0, 0, 0, 0], "background": [1, 1, 1, 0]}
    assert count_confusions(truth, detections, 0.5, 0.5).tolist() == [*rows.values()]
    rows |= {"cat": [0, 2, 0, 0], "background": [2, 0, 1, 0]}
    assert count_confusions(truth, detections, 0.5, 0.85).tolist() == [*rows.values()]
    rows |= {"cat": [0, 2, 0, 0], "dog": [0, 1, 0, 0]}
    assert count_confusions(truth, detections, 0.4, 0.85).tolist() == [*rows.values()]


def test_confusions_are_those_of_supervision(truth: COCO) -> None:
    """In an image without crowds, of which it knows nothing."""
    supervision = pytest.importorskip("supervision")
    random, order = np.random.default_rng(0), sorted(truth.cats)

    def crowded() -> list[dict[str, object]]:
        boxes = np.hstack([random.uniform(0, 60, (40, 2)), random.uniform(10, 30, (40, 2))]).tolist()
        return [
            detection(order[k], box, 0.9) for k, box in zip(random.integers(3, size=40), boxes, strict=True)
        ]

    def rows(entries: list[dict[str, object]], *columns: str) -> np.ndarray:
        corners = np.array([each["bbox"] for each in entries])
        corners[:, 2:] += corners[:, :2]
        classes = np.array([order.index(each["category_id"]) for each in entries])
        scores = np.array([[each[column] for column in columns] for each in entries])
        return np.hstack([corners, classes[:, None], scores]).astype(np.float32)

    objects, found = crowded(), crowded()
    truth.imgToAnns[7] = objects
    theirs = supervision.ConfusionMatrix.from_tensors(
        [rows(found, "score")], [rows(objects)], ["cat", "dog", "bird"], 0.3, 0.3
    )
    assert theirs.matrix[:3, :3].sum() > 10
    assert count_confusions(truth, found, 0.3, 0.3).tolist() == theirs.matrix.tolist()


def test_curves_by_hand(truth: COCO) -> None:
    """Of cats: right, wrong, right. Of dogs: none. A bird has no truth, and no part in the mean."""
    detections = [
        detection(2, [0, 0, 10, 7], 0.9),  # an IoU of 0.7
        detection(2, [70, 0, 10, 10], 0.8),
        detection(2, [20, 0, 10, 10], 0.7),
    ]
    precision = precision_of(truth, detections, "bbox", ())
    assert precision.shape == (10, 101, 3)
    assert (precision[..., 2] == -1).all()
    figure = plot_curves({"bbox": precision}, {"cat": 2, "dog": 2, "bird": 0})
    above, below = figure.axes
    at_50, at_75, mean = (line.get_ydata() for line in above.lines)
    np.testing.assert_allclose(at_50, [0.5] * 51 + [1 / 3] * 50)  # halved by the dogs
    np.testing.assert_allclose(at_75, [1 / 6] * 51 + [0] * 50)  # the first cat is wrong, too
    np.testing.assert_allclose(mean, precision[:, :, :2].mean((0, 2)))
    np.testing.assert_allclose(below.lines[0].get_ydata(), precision[:, :, 0].mean(0))
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert labels == [f"cat: AP {100 * precision[:, :, 0].mean():.1f}", "dog: AP 0.0"]


def test_eighty_categories_are_shown_as_far_as_they_can_be() -> None:
    names = [f"category {k}" for k in range(80)]
    _, below = plot_curves({"bbox": np.ones((10, 101, 80))}, {name: k for k, name in enumerate(names)}).axes
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert labels == [f"category {k}: AP 100.0" for k in range(79, 69, -1)]
    counts = np.zeros((81, 81), dtype=int)
    counts[3, 3], counts[4, 80], counts[80, 5] = 12, 3, 4
    (axes,) = plot_confusion(counts, names, "").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*names[3:6], "missed"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == [*names[3:6], "background"]
    shown = {text.get_position(): text.get_text() for text in axes.texts}
    assert shown == {(0, 0): "12", (3, 1): "3", (2, 3): "4"}


@pytest.fixture
def saved(shapes_root: Path, tmp_path: Path) -> Path:
    """The output folder of an evaluation with the truth of keypoints_shapes_val as its detections."""
    truth = json.loads(Path(MetadataCatalog.get("keypoints_shapes_val").json_file).read_text())
    keys = ("image_id", "category_id", "bbox")
    found = [{key: each[key] for key in keys} | {"score": 0.9} for each in truth["annotations"]]
    for result, each in zip(found, truth["annotations"], strict=True):
        result["keypoints"] = [value + 2 * (k % 3 < 2) for k, value in enumerate(each["keypoints"])]
    options = ("DATASETS.TEST", "('keypoints_shapes_val',)", "TEST.KEYPOINT_OKS_SIGMAS", str([0.002] * 17))
    (tmp_path / "run" / "inference").mkdir(parents=True)
    cfg = config_with("quick_schedules/keypoint_rcnn_R_18_FPN_shapes.yaml", options)
    (tmp_path / "run" / "config.yaml").write_text(cfg.dump())
    (tmp_path / "run" / "inference" / RESULTS).write_text(json.dumps(found))
    return tmp_path / "run"


def test_a_training_and_a_file_give_the_same_plots(tool: Tool, saved: Path, tmp_path: Path) -> None:
    """But for the sigmas of keypoints, which only the training has."""
    curves, confusion = (tmp_path / "plots" / name for name in ("curves.png", "confusion.png"))
    tool("--input", saved)
    before = [curves.read_bytes(), confusion.read_bytes()]
    assert all(len(content) > 10_000 for content in before)
    tool("--input", saved, "--dataset", "keypoints_shapes_val")
    assert [curves.read_bytes(), confusion.read_bytes()] == before
    tool("--input", saved / "inference" / RESULTS, "--dataset", "keypoints_shapes_val")
    assert confusion.read_bytes() == before[1]
    assert curves.read_bytes() != before[0]


def test_mistakes(tool: Tool, saved: Path, tmp_path: Path) -> None:
    file = saved / "inference" / RESULTS
    shutil.copytree(saved, tmp_path / "unevaluated", ignore=shutil.ignore_patterns("inference"))
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy" / "config.yaml").write_text("model: {backbone: !!python/tuple [1]}")
    others = {"empty": "[]", "truth": '{"images": []}', "text": "no JSON", "numbers": "[1]"}
    others["other"] = json.dumps([detection(1, [0, 0, 1, 1], 0.5) | {"image_id": "7.jpg"}])
    for name, content in others.items():
        (tmp_path / name).write_text(content)
    shapes = ("--dataset", "keypoints_shapes_val")
    for words, message in (
        ((saved / "missing", *shapes), "missing"),
        ((saved, "--dataset", "shapes_val"), f"{saved} was tested on keypoints_shapes_val. Choose one with"),
        ((tmp_path / "unevaluated",), f"has no inference/{RESULTS}. Evaluate it"),
        ((tmp_path,), f"{tmp_path} is not an output folder of train_net.py"),
        ((tmp_path / "lazy",), f"{tmp_path / 'lazy'} is not an output folder of train_net.py"),
        ((file,), "Add --dataset NAME"),
        ((file, "--dataset", "keypoints_shape_val"), "Did you mean keypoints_shapes_val"),
        ((tmp_path / "other", *shapes), "is not of keypoints_shapes_val, which lacks image '7.jpg'"),
        ((tmp_path / "empty", *shapes), "has no detections"),
        ((tmp_path / "truth", *shapes), "is not a file of detections"),
        ((tmp_path / "text", *shapes), "is not a file of detections"),
        ((tmp_path / "numbers", *shapes), "is not a file of detections"),
        ((file, *shapes, "--iou-threshold", "0"), "--iou-threshold must be above 0"),
    ):
        assert message in refusal(tool, "--input", *words)
    assert not (tmp_path / "plots").exists()
