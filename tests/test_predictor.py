"""Models loaded for inference: the weights, what is refused, and the names of what they detect."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.modeling import build_model
from PIL import Image

from nl_detectron.checkpoint import load_weights
from nl_detectron.config import baseline_of
from nl_detectron.errors import UserError
from nl_detectron.predictor import Predictor


@pytest.fixture
def cfg(mask_cfg: CfgNode, tmp_path: Path) -> CfgNode:
    """Of a light Mask R-CNN whose weights are in a file; it keeps all detections."""
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    save(mask_cfg, tmp_path / "model.pth")
    mask_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    return mask_cfg


def save(cfg: CfgNode, path: Path) -> None:
    torch.save({"model": build_model(cfg).state_dict()}, path)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_it_computes_in_the_precision_of_the_config(precision: str, cfg: CfgNode, photo: np.ndarray) -> None:
    """Of a training in float16, too, which needs a GPU; boxes and masks stay where they are."""
    exact = Predictor(cfg)(photo)["instances"]
    cfg.SOLVER.AMP.PRECISION = precision
    predictor = Predictor(cfg)
    seen = []
    predictor.model.backbone.register_forward_hook(lambda module, inputs, out: seen.append(out["p2"].dtype))
    found = predictor(photo)["instances"]
    assert seen == [getattr(torch, precision)]
    assert found.pred_boxes.tensor.dtype == torch.float32
    assert len(found) == len(exact) > 0


@pytest.mark.parametrize("format_", ["BGR", "RGB", "L"])
def test_detections_are_those_of_the_model(
    format_: str, cfg: CfgNode, photo: np.ndarray, tmp_path: Path
) -> None:
    """On the image as Detectron2's mapper reads it, grey ones too."""
    cfg.INPUT.FORMAT = format_
    if format_ == "L":
        cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [110.0], [1.0]
        save(cfg, Path(cfg.MODEL.WEIGHTS))
    cfg.freeze()
    predictor = Predictor(cfg)
    found = predictor(photo)["instances"]

    model = build_model(cfg).eval()
    model.load_state_dict(torch.load(cfg.MODEL.WEIGHTS)["model"])
    file, (height, width) = tmp_path / "photo.png", photo.shape[:2]
    Image.fromarray(np.ascontiguousarray(photo[:, :, ::-1])).save(file)
    record = DatasetMapper(cfg, is_train=False)({"file_name": str(file), "height": height, "width": width})
    assert record["image"].shape[0] == len(cfg.MODEL.PIXEL_MEAN)
    with torch.no_grad():
        expected = model([record])[0]["instances"]
    assert len(found) == len(expected) > 0
    assert found.pred_boxes.tensor.equal(expected.pred_boxes.tensor)
    assert found.pred_masks.equal(expected.pred_masks)
    assert predictor.cfg.MODEL.WEIGHTS == cfg.MODEL.WEIGHTS
    assert predictor.report.loaded == predictor.report.total


def test_batches(cfg: CfgNode, photo: np.ndarray) -> None:
    """Of images of one size, which need no padding; what could not be read keeps its place."""
    predictor, sizes = Predictor(cfg), []
    photo = photo[:96, :128]
    images = [photo, photo[:, ::-1], photo[::-1], photo[:, 9:]]
    predictor.model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    error = UserError("no image")
    found = list(predictor.in_batches([error, *images[:1], error, *images[1:], error], 2))
    assert sizes == [2, 1, 1]
    assert [found.pop(k) for k in (-1, 2, 0)] == [error] * 3
    for image, (same, output) in zip(images, found, strict=True):
        expected, instances = predictor(image)["instances"], output["instances"]
        assert same is image
        torch.testing.assert_close(instances.scores[:5], expected.scores[:5])
        torch.testing.assert_close(instances.pred_boxes.tensor[:5], expected.pred_boxes.tensor[:5])


def test_a_batch_does_not_wait_for_the_next_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """A camera's frame is shown before the next one is there."""
    predictor = Predictor.__new__(Predictor)
    monkeypatch.setattr(predictor, "batch", lambda images: [{}] * len(images), raising=False)
    frames = iter(np.zeros((3, 4, 5, 3), np.uint8))
    assert next(predictor.in_batches(frames, 2))[0].shape == (4, 5, 3)
    assert len(list(frames)) == 1


def test_weights_of_the_baseline_are_whole(cfg: CfgNode) -> None:
    save(baseline_of(cfg), Path(cfg.MODEL.WEIGHTS))
    Predictor(cfg)


def test_a_model_that_is_not_whole(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    """The caller shows the report, so that the log has nothing of it."""
    weights = torch.load(cfg.MODEL.WEIGHTS)["model"]
    weights.pop("backbone.fpn_lateral2.weight")
    torch.save({"model": weights}, cfg.MODEL.WEIGHTS)
    with pytest.raises(UserError, match=r"MODEL.WEIGHTS \S+ does not hold all of this model: 1 tensors"):
        Predictor(cfg)
    assert "WRONG, missing in the checkpoint" in str(Predictor(cfg, allow_mismatch=True).report)
    assert "report" not in caplog.text


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("", "MODEL.WEIGHTS is empty. Set it to a checkpoint of this model."),
        ("no.pth", "MODEL.WEIGHTS 'no.pth' does not exist."),
    ],
)
def test_weights_that_are_none(weights: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        load_weights(torch.nn.Linear(1, 1), weights)


def test_names_of_the_test_set(keypoint_cfg: CfgNode, tmp_path: Path) -> None:
    """Its own where it has as many as the model, or else numbers."""
    save(keypoint_cfg, tmp_path / "model.pth")
    keypoint_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    metadata = Predictor(keypoint_cfg).metadata
    assert metadata.thing_classes == ["person"]
    assert metadata.keypoint_names[:2] == ("nose", "left_eye")
    assert metadata.keypoint_connection_rules
    for names in (("shapes_val",), ("a_set_of_nobody",), ()):  # shapes_val has 4 classes, and no keypoints
        keypoint_cfg.DATASETS.TEST = names
        metadata = Predictor(keypoint_cfg).metadata
        assert metadata.thing_classes == ["0"]
        assert metadata.keypoint_names == [str(k) for k in range(17)]
        assert metadata.stuff_classes[-1] == "53"
    assert "a_set_of_nobody" not in DatasetCatalog.list()
    assert len(MetadataCatalog.get("shapes_val").thing_classes) == 4
