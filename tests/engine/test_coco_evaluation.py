"""Evaluation by faster-coco-eval gives the AP of pycocotools, which evaluates where the other cannot."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import coco_evaluation
from detectron2.structures import Boxes, Instances
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from runs import registrations_forgotten

from nl_detectron.data import register_coco
from nl_detectron.engine import Trainer
from nl_detectron.engine.evaluation import metrics_of

Results = dict[str, dict[str, float]]
COMPILED = "COCOeval_opt.evaluate() finished"  # what faster-coco-eval prints, and pycocotools does not


@pytest.fixture(autouse=True)
def _without_detectron2s_own(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="nl_detectron")
    monkeypatch.setattr(coco_evaluation, "COCOeval_opt", COCOeval)


@pytest.fixture
def by_pycocotools(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Take faster-coco-eval away, from the evaluator that is built next."""

    def take_away() -> None:
        monkeypatch.setattr(coco_evaluation, "COCOeval_opt", COCOeval)
        monkeypatch.setitem(sys.modules, "faster_coco_eval", None)

    return take_away


def difficult(source: str, path: Path) -> Path:
    """A data set's file in which every fifth object is a crowd, with a second category that has no object."""
    content = json.loads(Path(MetadataCatalog.get(source).json_file).read_text())
    for annotation in content["annotations"][::5]:
        annotation["iscrowd"] = 1
    content["categories"].append({**content["categories"][0], "id": 90, "name": "never seen"})
    path.write_text(json.dumps(content))
    return path


def detections_in(truth: COCO, image: dict[str, object], random: np.random.Generator) -> Instances:
    """150 detections: objects that are moved, of another class now and then, with scores that are equal."""
    objects = truth.imgToAnns[image["image_id"]]
    objects = [objects[k] for k in random.integers(len(objects), size=150)]
    moves = random.choice([0, 0, 1, 2, 5], (150, 2))
    found = Instances((image["height"], image["width"]))
    corners = np.array([each["bbox"] for each in objects], dtype=float)
    corners[:, 2:] += corners[:, :2]
    found.pred_boxes = Boxes(torch.tensor(corners + np.tile(moves, 2)))
    found.scores = torch.tensor(random.random(150).round(1))
    classes = [sorted(truth.cats).index(each["category_id"]) for each in objects]
    is_right = random.random(150) < 0.8
    found.pred_classes = torch.tensor(np.where(is_right, classes, random.integers(len(truth.cats), size=150)))
    masks = [np.roll(truth.annToMask(o), (y, x), (0, 1)) for o, (x, y) in zip(objects, moves, strict=True)]
    found.pred_masks = torch.tensor(np.stack(masks), dtype=torch.bool)
    if "keypoints" in objects[0]:
        found.pred_keypoints = torch.tensor([each["keypoints"] for each in objects]).float().view(150, -1, 3)
        found.pred_keypoints[..., :2] += torch.tensor(moves)[:, None]
    return found


def evaluate(cfg: CfgNode, name: str, folder: Path) -> Results:
    """Evaluate detections, always the same."""
    evaluator, random = Trainer.build_evaluator(cfg, name, str(folder)), np.random.default_rng(0)
    truth = COCO(MetadataCatalog.get(name).json_file)
    evaluator.reset()
    for image in DatasetCatalog.get(name):
        if truth.imgToAnns[image["image_id"]]:
            evaluator.process([image], [{"instances": detections_in(truth, image, random)}])
    return evaluator.evaluate()


@pytest.mark.parametrize("kind", ["shapes", "keypoints_shapes"])
def test_the_ap_is_that_of_pycocotools(
    kind: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    by_pycocotools: Callable[[], None],
) -> None:
    """Per category too, with crowds, more than 100 detections in an image, equal scores, and own sigmas."""
    pytest.importorskip("faster_coco_eval")
    cfg = request.getfixturevalue("mask_cfg" if kind == "shapes" else "keypoint_cfg")
    folder = request.getfixturevalue("shapes_root") / "shapes" / "train"
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.05] * 17
    with registrations_forgotten():
        register_coco("difficult", str(difficult(f"{kind}_train", tmp_path / "truth.json")), str(folder))
        compiled = evaluate(cfg, "difficult", tmp_path)
        assert caplog.text.count(COMPILED) == 2
        by_pycocotools()
        expected = evaluate(cfg, "difficult", tmp_path)
        assert caplog.text.count(COMPILED) == 2
        announced = metrics_of(cfg, "difficult")
    assert announced == [f"{task}/{name}" for task, scores in expected.items() for name in scores]
    assert set(expected) == ({"bbox", "segm"} if kind == "shapes" else {"bbox", "keypoints"})
    for task, scores in expected.items():
        assert "AP-never seen" in scores
        assert 5 < scores["AP"] < 95
        assert compiled[task] == pytest.approx(scores, rel=0, abs=1e-12, nan_ok=True)


def test_image_ids_of_text_are_left_to_pycocotools(
    mask_cfg: CfgNode, shapes_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = json.loads(Path(MetadataCatalog.get("shapes_val").json_file).read_text())
    for entry in content["images"]:
        entry["id"] = f"image {entry['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"image {annotation['image_id']}"
    (tmp_path / "truth.json").write_text(json.dumps(content))
    with registrations_forgotten():
        register_coco("texts", str(tmp_path / "truth.json"), str(shapes_root / "shapes" / "val"))
        assert evaluate(mask_cfg, "texts", tmp_path)["segm"]["AP"] > 5
    assert COMPILED not in caplog.text


def test_detectron2s_own_compiled_evaluation_is_kept(
    mask_cfg: CfgNode, shapes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = type("COCOeval_opt", (COCOeval,), {})
    monkeypatch.setattr(coco_evaluation, "COCOeval_opt", own)
    Trainer.build_evaluator(mask_cfg, "shapes_val")
    assert coco_evaluation.COCOeval_opt is own
