"""Exports of light models: what the files give at other sizes, what is refused, and that checks can fail."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import export
import numpy as np
import onnxruntime
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from exporting import models, onnx_graphs
from exporting.detections import Detections, compare, compare_all, detect
from exporting.files import refused, write_checked
from torch import Tensor

from nl_detectron import NonLocalBlock
from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
DEFORMABLE = "RESNETS.DEFORM_ON_PER_STAGE [False,True,True,True]"
NORMS = ("BN", "GN", "FrozenBN", "")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """As the tool runs; without the optimization of TorchScript's first calls, which takes seconds."""
    with torch.no_grad(), torch.jit.optimized_execution(False):
        yield


def run_onnx(path: Path, x: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


@pytest.mark.parametrize("format_", ["torchscript-script", "torchscript-trace"])
@pytest.mark.parametrize("kind", ["mask", "keypoint"])
def test_torchscript(
    kind: str,
    format_: str,
    mask_cfg: CfgNode,
    keypoint_cfg: CfgNode,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The file holds for an image of a third size, beside the two that the tool itself checks."""
    cfg = mask_cfg if kind == "mask" else keypoint_cfg
    output = tmp_path / "new" / "model.ts"
    export.run(cfg, format_, output)
    printed = capsys.readouterr().out
    assert printed.count("20 detections, eager 20; the same: ") == 2
    assert [path.name for path in output.parent.iterdir()] == ["model.ts"]

    model, image = models.load_model(cfg), 255 * torch.rand(3, 70, 110)
    (expected,) = detect(model, [{"image": image}])
    loaded = torch.jit.load(output)
    if format_ == "torchscript-script":
        (found,) = loaded([{"image": image}])
    else:
        names = next(line for line in printed.splitlines() if "outputs" in line).split(": ")[1]
        found = dict(zip(names.split(", "), loaded(image), strict=True))
    assert compare(found, expected) < 1e-4
    assert ("pred_masks" if kind == "mask" else "pred_keypoints") in found


@pytest.mark.parametrize("subsample", ["input", "embedding", "none"])
@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
def test_onnx_block_is_for_all_sizes(pairwise: str, subsample: str, tmp_path: Path) -> None:
    """Sizes that the export has not seen; every norm and scale in turn."""
    index = len(pairwise) + len(subsample)
    norm, scale = NORMS[index % len(NORMS)], bool(index % 2)
    block = NonLocalBlock(32, pairwise=pairwise, subsample=subsample, norm=norm, scale=scale).eval()
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    path = tmp_path / "block.onnx"
    onnx_graphs.export_block(block, path)
    sizes = [(4, 11, 3), (1, 2, 13), (2, 3, 3)] + [(1, 1, 5), (1, 1, 1)] * (subsample == "none")
    for batch, height, width in sizes:
        x = torch.randn(batch, 32, height, width)
        torch.testing.assert_close(run_onnx(path, x), [block(x)], rtol=1e-4, atol=1e-4)
    x = torch.randn(2, 32, 8, 8)
    assert onnx_graphs._largest_difference(path, block, [x]) < 1e-4
    block.out.weight.neg_()
    assert onnx_graphs._largest_difference(path, block, [x]) > 1e-2


def test_onnx_files_of_a_model(mask_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The backbone at a size that the export has not seen, and one file per block."""
    export.run(mask_cfg, "onnx-backbone", tmp_path / "backbone.onnx")
    assert "its outputs: p2, p3, p4, p5, p6" in capsys.readouterr().out
    x = torch.randn(1, 3, 64, 192)
    expected = models.load_model(mask_cfg).backbone(x)
    for found, value in zip(run_onnx(tmp_path / "backbone.onnx", x), expected.values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)
    export.run(mask_cfg, "onnx-block", tmp_path / "blocks")
    files = [path.name for path in (tmp_path / "blocks").iterdir()]
    assert files == ["backbone.bottom_up.res4.non_local_1.onnx"]


def test_weights_are_those_of_the_file(
    mask_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a block that was not trained is said to be the identity; random weights never are."""
    mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.3
    models.load_model(mask_cfg)
    assert mask_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST == 0.3
    assert "random weights" in capsys.readouterr().out
    saved = build_model(mask_cfg)
    DetectionCheckpointer(saved, str(tmp_path)).save("model")
    mask_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    loaded = models.load_model(mask_cfg)
    assert "res4.non_local_1 adds little or nothing to its input" in capsys.readouterr().out
    assert all(tensor.equal(saved.state_dict()[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("pairwise", ["embedded_gaussian", "dot_product"])
def test_random_blocks_add_half_of_x(keypoint_cfg: CfgNode, pairwise: str) -> None:
    keypoint_cfg.MODEL.NON_LOCAL.PAIRWISE = pairwise
    model = models.load_model(keypoint_cfg)
    for _, block in non_local_blocks(model):
        block.register_forward_hook(lambda _, x, z: ratios.append((z - x[0]).std() / x[0].std()))
    ratios: list[Tensor] = []
    detect(model, [{"image": 255 * torch.rand(3, 96, 128)}])
    assert len(ratios) == 4
    assert all(0.1 < ratio < 2.5 for ratio in ratios)


@pytest.mark.parametrize("difference", [1e-3, float("inf"), float("nan")])
def test_failed_check_leaves_what_was_there(difference: float, tmp_path: Path) -> None:
    output = tmp_path / "model.onnx"
    output.write_bytes(b"old")
    with pytest.raises(UserError, match="must equal eager PyTorch to 1e-04 .* it differs by"):
        write_checked(output, lambda path: path.write_bytes(b"new"), lambda path: difference)
    assert output.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [output]


def detections(count: int) -> Detections:
    boxes = 100 * torch.rand(count, 4)
    return {"pred_boxes": boxes, "scores": torch.rand(count), "pred_classes": torch.arange(count) % 3}


def test_detections_are_compared_as_a_set() -> None:
    """Another order and one flipped detection of 20 are rounding; two of them, or one too few, are not."""
    expected = detections(20)
    order = torch.randperm(20)
    found = {name: value[order].clone() for name, value in expected.items()}
    assert compare(found, expected) == 0.0
    found["pred_boxes"][0] += 1
    assert compare(found, expected) == 0.0
    found["scores"][1] += 0.1
    assert compare(found, expected) > 1e-2
    assert compare({name: value[:18] for name, value in expected.items()}, expected) == float("inf")
    assert compare(detections(0), expected) == compare(expected, detections(0)) == float("inf")
    assert compare(detections(0), detections(0)) == 0.0


def test_comparing_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    some, none = detections(3), detections(0)
    assert compare_all([none, some], [none, some]) == 0.0
    assert "nothing is compared" not in capsys.readouterr().out
    assert compare_all([none, none], [none, none]) == 0.0
    assert "nothing is compared: give another --input" in capsys.readouterr().out


def test_image_is_resized_as_in_testing(mask_cfg: CfgNode, photo: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "image.png"), photo)
    image, other = models.sample_images(mask_cfg, tmp_path / "image.png")
    assert min(image.shape[1:]) == 96
    assert other.shape[1:] != image.shape[1:]
    assert 0 <= other.min() <= other.max() <= 255
    (tmp_path / "text.png").write_text("no image")
    for name in ("text.png", "missing.png"):
        with pytest.raises((UserError, OSError), match=name):
            models.sample_images(mask_cfg, tmp_path / name)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("nope.yaml", "", "--config-file must be a file or a config of nl_detectron; got 'nope.yaml'"),
        (MASK, "MODEL.NOPE 1", "'MODEL.NOPE' must be a key of the config"),
        (MASK, "MODEL.BACKBONE.NAME build_resnet_fpn_backbone MODEL.NON_LOCAL.RES4 [0]", "RES4 must be left"),
    ],
)
def test_bad_configs(
    config: str, options: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["export.py", "--config-file", config, "--format", "onnx-block", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*command, *options.split()])
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        export.main()


def test_weights_of_another_model(mask_cfg: CfgNode, tmp_path: Path) -> None:
    state = build_model(mask_cfg).state_dict()
    del state["backbone.fpn_lateral2.weight"]
    torch.save(state, tmp_path / "part.pth")
    mask_cfg.MODEL.WEIGHTS = str(tmp_path / "part.pth")
    with pytest.raises(UserError, match="MODEL.WEIGHTS must hold this model.*--allow-mismatch"):
        models.load_model(mask_cfg)
    models.load_model(mask_cfg, allow_mismatch=True)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (
            "META_ARCHITECTURE PanopticFPN",
            "torchscript-trace",
            "GeneralizedRCNN or RetinaNet .*onnx-backbone",
        ),
        (DEFORMABLE, "torchscript-script", "DEFORM_ON_PER_STAGE must have no True .*use onnx-backbone"),
        (f"{DEFORMABLE} RESNETS.DEFORM_MODULATED True", "onnx-backbone", "DEFORM_MODULATED .*use onnx-block"),
    ],
)
def test_refused_models(options: str, kind: str, message: str, mask_cfg: CfgNode) -> None:
    mask_cfg.MODEL.WEIGHTS = "model.pth"
    export.check_model(mask_cfg, kind)
    words = options.split()
    mask_cfg.merge_from_list([f"MODEL.{word}" if i % 2 == 0 else word for i, word in enumerate(words)])
    export.check_model(mask_cfg, "onnx-block")
    with pytest.raises(UserError, match=message) as error:
        export.check_model(mask_cfg, kind)
    assert "\n" not in str(error.value)


def test_refused_outputs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for kind, path in (("onnx-block", tmp_path / "file"), ("onnx-backbone", tmp_path)):
        with pytest.raises(UserError, match=f"--output must be a .* for {kind}"):
            export.check_output(path, kind)
        export.check_output(tmp_path / "new", kind)


def test_baseline_has_no_block_to_export(mask_cfg: CfgNode, tmp_path: Path) -> None:
    mask_cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    with pytest.raises(UserError, match="onnx-block must be .*it has none"):
        export.run(mask_cfg, "onnx-block", tmp_path / "blocks")


def test_missing_package_is_one_line(
    mask_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = r"needs the package onnxruntime, .* pip install '.\[export\]'"
    with pytest.raises(UserError, match=message):
        export.run(mask_cfg, "onnx-block", tmp_path)


def test_refusal_of_an_exporter_is_its_first_cause() -> None:
    error = RuntimeError("a long story")
    error.__cause__ = ValueError("why\nwhere")

    def export() -> None:
        with refused("no graph", "Do this."):
            raise error

    with pytest.raises(UserError) as refusal:
        export()
    assert str(refusal.value) == "no graph: ValueError: why. Do this."


def test_whole_detectors_to_onnx_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", export.__file__, "--config-file", MASK, "--format", "onnx"]
    result = subprocess.run(
        [*command, "--output", str(tmp_path / "model.onnx")],
        env={**os.environ, "PYTHONPATH": str(Path(export.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "A whole detector is not exported to ONNX" in line
    assert "Traceback" not in result.stderr
