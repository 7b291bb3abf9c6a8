"""The load report: what it says of every kind of checkpoint, and what it refuses to evaluate."""

import pickle
from pathlib import Path

import detectron2.model_zoo
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.checkpoint.load_report import LoadReport
from nl_detectron.config import baseline_of

BLOCK = "backbone.bottom_up.res4.non_local_1"


def load(cfg: CfgNode, tensors: dict[str, Tensor], path: Path) -> LoadReport:
    """The report of loading `tensors`, saved as .pth or as the .pkl of a classifier, into a new model."""
    if path.suffix == ".pth":
        torch.save({"model": tensors}, path)
    else:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        content = {"model": arrays, "__author__": "test", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
    checkpointer = Checkpointer(build_model(cfg))
    checkpointer.load(str(path))
    return checkpointer.report


@pytest.fixture
def baseline(mask_cfg: CfgNode) -> dict[str, Tensor]:
    return dict(build_model(baseline_of(mask_cfg)).state_dict())


def is_tensor(name: str) -> bool:
    return "num_batches_tracked" not in name


def test_a_baseline_lacks_the_blocks_and_nothing_else(
    mask_cfg: CfgNode, baseline: dict[str, Tensor], tmp_path: Path
) -> None:
    report = load(mask_cfg, baseline, tmp_path / "baseline.pth")
    count = sum(map(is_tensor, baseline))
    assert (report.loaded, report.total) == (count, count + 11)
    assert report.new_blocks == {BLOCK: 11}
    assert report.fits
    report.check_complete()
    assert f"loaded: {count} of the model's {count + 11} tensors" in str(report)
    assert f"new, as expected: {BLOCK} (11 tensors)" in str(report)
    assert "the checkpoint has no non-local tensor, so this is its baseline" in str(report)
    assert "WRONG" not in str(report)


def test_its_own_checkpoint_is_loaded_whole(mask_cfg: CfgNode, tmp_path: Path) -> None:
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("own")
    checkpointer = Checkpointer(build_model(mask_cfg))
    checkpointer.load(str(tmp_path / "own.pth"))
    report = checkpointer.report
    assert report.loaded == report.total
    assert (report.new_blocks, report.fits) == ({}, True)
    report.check_complete()
    assert len(str(report).splitlines()) == 2


def test_four_blocks_of_a_head(keypoint_cfg: CfgNode, tmp_path: Path) -> None:
    tensors = dict(build_model(baseline_of(keypoint_cfg)).state_dict())
    report = load(keypoint_cfg, tensors, tmp_path / "baseline.pth")
    assert report.new_blocks == {f"roi_heads.keypoint_head.non_local_{k}": 11 for k in (2, 4, 6, 8)}
    report.check_complete()


@pytest.mark.parametrize("name", ["backbone.fpn_lateral3.weight", f"{BLOCK}.theta.weight"])
def test_a_missing_tensor_is_wrong(name: str, mask_cfg: CfgNode, tmp_path: Path) -> None:
    """A part of a block too: it is not new, it has lost its weights."""
    tensors = dict(build_model(mask_cfg).state_dict())
    del tensors[name]
    report = load(mask_cfg, tensors, tmp_path / "part.pth")
    assert report.missing == [name]
    assert not report.fits
    assert f"WRONG, missing in the checkpoint, so new: {name.removesuffix('.weight')} (1)" in str(report)
    with pytest.raises(
        ValueError, match=r"^MODEL.WEIGHTS \S+ does not hold.*1 tensors are missing.*--allow-mis"
    ):
        report.check_complete()


def test_blocks_of_another_place_are_unexpected(mask_cfg: CfgNode, tmp_path: Path) -> None:
    tensors = dict(build_model(mask_cfg).state_dict())
    mask_cfg.MODEL.NON_LOCAL.RES4 = [0]
    report = load(mask_cfg, tensors, tmp_path / "elsewhere.pth")
    assert list(report.new_blocks) == ["backbone.bottom_up.res4.non_local_0"]
    assert len(report.unexpected) == 11
    assert "no non-local tensor" not in str(report)
    assert all(name.startswith(BLOCK) for name in report.unexpected)
    with pytest.raises(ValueError, match="11 tensors are unexpected"):
        report.check_complete()


@pytest.mark.parametrize(
    ("key", "value"), [("PAIRWISE", "dot_product"), ("SUBSAMPLE", "none"), ("SCALE", False)]
)
def test_another_variant_of_the_block_is_wrong(
    key: str, value: object, mask_cfg: CfgNode, tmp_path: Path
) -> None:
    """Its tensors have the same names and shapes."""
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("trained")
    trained = mask_cfg.MODEL.NON_LOCAL[key]
    message = f"{key.lower()} {trained!r} in the checkpoint, and {value!r} in this model"
    mask_cfg.MODEL.NON_LOCAL[key] = value
    other = Checkpointer(build_model(mask_cfg))
    other.load(str(tmp_path / "trained.pth"))
    assert not other.report.fits
    assert f"WRONG, trained as another variant: {BLOCK} has {message}" in str(other.report)
    with pytest.raises(ValueError, match=f"{BLOCK} has {key.lower()}"):
        other.report.check_complete()


def test_a_block_that_has_lost_all_of_its_tensors_is_not_evaluated(mask_cfg: CfgNode, tmp_path: Path) -> None:
    """To train it, it is new; but a checkpoint with blocks should have all of them."""
    mask_cfg.MODEL.NON_LOCAL.RES4 = [0, 1]
    tensors = dict(build_model(mask_cfg).state_dict())
    report = load(mask_cfg, {k: t for k, t in tensors.items() if BLOCK not in k}, tmp_path / "one.pth")
    assert report.new_blocks == {BLOCK: 11}
    assert report.fits
    assert "no non-local tensor" not in str(report)
    with pytest.raises(ValueError, match=f"it has blocks, but not {BLOCK}"):
        report.check_complete()


def test_statistics_that_frozen_norms_make_up_are_missing(mask_cfg: CfgNode, tmp_path: Path) -> None:
    """Detectron2's FrozenBN takes 0 and 1 for what a file has not, and calls nothing missing."""
    mask_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    tensors = dict(build_model(baseline_of(mask_cfg)).state_dict())
    lost = {name: tensor for name, tensor in tensors.items() if "running_" not in name}
    report = load(mask_cfg, lost, tmp_path / "lost.pth")
    assert len(report.missing) == len(tensors) - len(lost) > 0
    assert report.loaded == len(lost)


def test_caffe2_has_no_statistics(mask_cfg: CfgNode, tmp_path: Path) -> None:
    mask_cfg.MODEL.RESNETS.NORM = "FrozenBN"
    resnet = build_model(baseline_of(mask_cfg)).backbone.bottom_up.state_dict()
    folded = {name: tensor for name, tensor in resnet.items() if "running_" not in name}
    report = load(mask_cfg, folded, tmp_path / "R-18.pkl")
    assert report.fits
    assert len(report.statistics) == len(resnet) - len(folded)
    assert "statistics of FrozenBN are 0 and 1, as it has none" in str(report)


def test_a_new_block_with_a_frozen_norm(
    mask_cfg: CfgNode, baseline: dict[str, Tensor], tmp_path: Path
) -> None:
    mask_cfg.MODEL.NON_LOCAL.NORM = "FrozenBN"
    report = load(mask_cfg, baseline, tmp_path / "baseline.pth")
    assert report.new_blocks == {BLOCK: 11}
    report.check_complete()


def test_the_same_classes_in_another_width(
    mask_cfg: CfgNode, baseline: dict[str, Tensor], tmp_path: Path
) -> None:
    mask_cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 128
    report = load(mask_cfg, baseline, tmp_path / "wide.pth")
    assert report.counts == []
    assert "roi_heads.box_predictor.cls_score.weight" in [name for name, _, _ in report.shapes]
    assert "WRONG, of another shape, so new: roi_heads.box_head" in str(report)
    assert not report.fits


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_another_number_of_classes_has_its_own_line(
    suffix: str, mask_cfg: CfgNode, baseline: dict[str, Tensor], tmp_path: Path
) -> None:
    """Also where Detectron2 matches names by their ends and calls such tensors missing and unexpected."""
    mask_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 7
    report = load(mask_cfg, baseline, tmp_path / f"four{suffix}")
    assert report.counts == ["the checkpoint has 4 classes, and this model 7 (MODEL.ROI_HEADS.NUM_CLASSES)"]
    assert {name.split(".")[1] for name, _, _ in report.shapes} == {"box_predictor", "mask_head"}
    assert (report.missing, report.unexpected) == ([], [])
    assert "new: other number of classes or keypoints: roi_heads.box_predictor.cls_score (2), " in str(report)
    assert "WRONG" not in str(report)
    assert report.fits
    with pytest.raises(ValueError, match="checkpoint has 4 classes, and this model 7"):
        report.check_complete()


def test_another_number_of_keypoints(keypoint_cfg: CfgNode, tmp_path: Path) -> None:
    tensors = dict(build_model(keypoint_cfg).state_dict())
    keypoint_cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = 5
    report = load(keypoint_cfg, tensors, tmp_path / "coco.pth")
    assert "the checkpoint has 17 keypoints, and this model 5 (MODEL.ROI_KEYPOINT" in report.counts[0]


def test_constants_in_a_file_of_the_model_zoo(mask_cfg: CfgNode, tmp_path: Path) -> None:
    """Anchors and the mean of the pixels, which the config decides, are not unexpected."""
    model = build_model(mask_cfg)
    named = dict(model.named_buffers())
    constants = {name: each for name, each in named.items() if "cell_anchors" in name or "pixel_" in name}
    assert len(constants) > 2
    report = load(mask_cfg, {**model.state_dict(), **constants}, tmp_path / "zoo.pth")
    assert report.unexpected == []
    report.check_complete()


def test_a_classifier_for_a_c4_model(tmp_path: Path) -> None:
    """Whose last stage is in the heads."""
    cfg = detectron2.model_zoo.get_config("COCO-Detection/faster_rcnn_R_50_C4_1x.yaml")
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.RES2_OUT_CHANNELS, cfg.MODEL.RESNETS.WIDTH_PER_GROUP = "cpu", 32, 8
    tensors = {
        name.removeprefix("backbone.").removeprefix("roi_heads."): tensor
        for name, tensor in build_model(cfg).state_dict().items()
        if name.startswith(("backbone.", "roi_heads.res5."))
    }
    report = load(cfg, tensors, tmp_path / "R-50.pkl")
    assert report.fits
    assert report.missing == []
    assert {name.split(".")[0] for name in report.heads} == {"proposal_generator", "roi_heads"}


def test_another_number_of_classes_of_retinanet(mask_cfg: CfgNode, tmp_path: Path) -> None:
    cfg = mask_cfg
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_nl_retinanet_resnet_fpn_backbone"
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    tensors = dict(build_model(cfg).state_dict())
    cfg.MODEL.RETINANET.NUM_CLASSES = 3
    report = load(cfg, tensors, tmp_path / "retinanet.pth")
    assert report.counts == ["the checkpoint has 80 classes, and this model 3 (MODEL.RETINANET.NUM_CLASSES)"]
    cfg.MODEL.RETINANET.NUM_CLASSES = 80
    cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS = [[1.0]]
    report = load(cfg, tensors, tmp_path / "retinanet.pth")
    assert report.counts == []
    assert "head.cls_score.weight" in [name for name, _, _ in report.shapes]


def test_a_classifier_is_right_to_train_from_and_wrong_to_evaluate(
    mask_cfg: CfgNode, baseline: dict[str, Tensor], tmp_path: Path
) -> None:
    prefix = "backbone.bottom_up."
    resnet = {name.removeprefix(prefix): t for name, t in baseline.items() if name.startswith(prefix)}
    report = load(mask_cfg, {**resnet, "stem.fc.weight": torch.zeros(2, 2)}, tmp_path / "R-18.pkl")
    assert report.loaded == sum(map(is_tensor, resnet))
    assert report.new_blocks == {BLOCK: 11}
    assert report.fits
    assert report.heads == [name for name in baseline if not name.startswith(prefix)]
    assert "new, because it has a ResNet only: backbone.fpn_lateral2 (2)" in str(report)
    with pytest.raises(ValueError, match="tensors are missing"):
        report.check_complete()


@pytest.mark.parametrize(("lost", "level"), [("", "INFO"), ("backbone.fpn_lateral3.weight", "WARNING")])
def test_the_report_is_a_warning_only_if_something_is_wrong(
    lost: str,
    level: str,
    mask_cfg: CfgNode,
    baseline: dict[str, Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="nl_detectron")
    baseline.pop(lost, None)
    torch.save(baseline, tmp_path / "baseline.pth")
    checkpointer = Checkpointer(build_model(mask_cfg))
    checkpointer.load(str(tmp_path / "baseline.pth"))
    levels = [r.levelname for r in caplog.records if r.getMessage() == str(checkpointer.report)]
    assert levels == [level]


def test_takes_the_place_of_detectron2s(mask_cfg: CfgNode, tmp_path: Path) -> None:
    model, extra = build_model(mask_cfg), nn.Linear(2, 2)
    old = DetectionCheckpointer(model, str(tmp_path), save_to_disk=False, extra=extra)
    new = Checkpointer.in_place_of(old)
    assert (new.model, new.save_dir, new.save_to_disk) == (model, str(tmp_path), False)
    assert new.checkpointables == {"extra": extra}
