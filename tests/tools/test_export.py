"""tools/export.py: what the files give at other sizes, what is refused, and that checks can fail."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures.keypoints import heatmaps_to_keypoints
from PIL import Image
from runs import KEYPOINT, MASK, load_config, refusal
from torch import Tensor

from nl_detectron import NonLocalBlock
from nl_detectron.errors import UserError
from nl_detectron_cli import export
from nl_detectron_cli.exporting import checking, onnx_detector, onnx_graphs, program
from nl_detectron_cli.exporting.torchscript import detect

RETINANET = (
    "MODEL.META_ARCHITECTURE RetinaNet MODEL.BACKBONE.NAME build_nl_retinanet_resnet_fpn_backbone "
    "MODEL.RESNETS.OUT_FEATURES ['res3','res4','res5'] MODEL.FPN.IN_FEATURES ['res3','res4','res5']"
)
HEAD_AND_RES5 = (
    "MODEL.BACKBONE.NAME build_nl_resnet_fpn_backbone MODEL.NON_LOCAL.RES5 [-1] "
    "MODEL.NON_LOCAL.PAIRWISE concatenation MODEL.NON_LOCAL.SUBSAMPLE embedding"
)
NORMS = ("BN", "GN", "FrozenBN", "")
Export = Callable[..., str]


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    """As the tool runs; without the optimization of TorchScript's first calls, which takes seconds."""
    with torch.no_grad(), torch.jit.optimized_execution(False):
        yield


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """Run the tool: what it prints."""

    def run_tool(config: str, kind: str, output: Path, *words: object) -> str:
        options = ["--config-file", config, "--format", kind, "--output", output, *words]
        monkeypatch.setattr(sys, "argv", ["export.py", *map(str, options)])
        export.main()
        return capsys.readouterr().out

    return run_tool


def run_onnx(path: Path, x: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(y) for y in session.run(None, {session.get_inputs()[0].name: x.numpy()})]


@pytest.mark.parametrize(
    ("config", "format_", "keys"),
    [
        (MASK, "torchscript-trace", ""),
        pytest.param(MASK, "torchscript-script", "", marks=pytest.mark.slow),
        pytest.param(KEYPOINT, "torchscript-trace", "", marks=pytest.mark.slow),
        pytest.param(KEYPOINT, "torchscript-script", "", marks=pytest.mark.slow),
        pytest.param(MASK, "torchscript-script", RETINANET, marks=pytest.mark.slow),
    ],
)
def test_torchscript(config: str, format_: str, keys: str, run: Export, tmp_path: Path) -> None:
    """The file holds for an image of a third size, beside the two that the tool itself checks."""
    output = tmp_path / "new" / "model"
    words = f"INPUT.MIN_SIZE_TEST 96 MODEL.RETINANET.TOPK_CANDIDATES_TEST 50 {keys}".split()
    printed = run(config, format_, output, *words)
    assert printed.count("20 detections, eager 20; the same: ") == 2
    assert "adds little" not in printed  # so that a wrong block would be noticed
    assert [path.name for path in output.parent.iterdir()] == ["model"]
    cfg = load_config("--config-file", config, *words)
    image = 255 * torch.rand(3, 70, 110)
    (expected,) = detect(program.load_model(cfg), image)
    loaded = torch.jit.load(output)
    if format_ == "torchscript-script":
        (found,) = loaded([{"image": image}])
    else:
        names = next(line for line in printed.splitlines() if "outputs" in line).split(": ")[1]
        found = dict(zip(names.split(", "), loaded(image), strict=True))
    assert found.keys() == expected.keys()
    if not keys:  # scripted RetinaNet does not clip boxes
        checking.check_detections([found], [expected])


@pytest.mark.slow
@pytest.mark.parametrize(("config", "keys"), [(MASK, ""), (KEYPOINT, HEAD_AND_RES5), (MASK, RETINANET)])
def test_onnx_detector(config: str, keys: str, run: Export, tmp_path: Path) -> None:
    """The file holds for larger, smaller and odd sizes, and gives what exceeds the threshold."""
    words = f"INPUT.MIN_SIZE_TEST 96 INPUT.FORMAT RGB {keys}".split()
    printed = run(config, "onnx", tmp_path / "model.onnx", *words)
    assert (
        printed.count("20 detections, eager 20; the same: ") == 4
    )  # at two sizes, with optimization and without
    assert printed.count("0 detections, eager 0; the same: 0") == 2
    cfg = load_config("--config-file", config, *words)
    model = program.load_model(cfg)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for height, width in ((33, 50), (75, 211), (250, 90)):
        image = 255 * torch.rand(3, height, width)
        (expected,) = detect(model, image)
        expected.pop("pred_keypoint_heatmaps", None)
        threshold = expected["scores"][9:11].mean()  # of 20, in descending order
        expected = {name: value[expected["scores"] > threshold] for name, value in expected.items()}
        values = session.run(None, {"image": image.numpy(), "score_threshold": threshold.numpy()})
        checking.check_detections([dict(zip(names, map(torch.from_numpy, values), strict=True))], [expected])
    values = session.run(None, {"image": image.numpy(), "score_threshold": torch.tensor(2.0).numpy()})
    assert [value.shape for value in values] == [(0, *expected[name].shape[1:]) for name in names]
    metadata = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    assert metadata == onnx_detector.metadata_of(cfg)


def test_onnx_metadata(mask_cfg: CfgNode, keypoint_cfg: CfgNode) -> None:
    """Names are those of the data set, or numbers if their count is not the model's."""
    metadata = onnx_detector.metadata_of(mask_cfg)
    assert metadata["thing_classes"] == ["person", "circle", "square", "triangle"]
    assert metadata["INPUT.MIN_SIZE_TEST"] == 96
    assert metadata["versions"]["torch"] == torch.__version__
    assert "keypoint_names" not in metadata
    assert len(onnx_detector.metadata_of(keypoint_cfg)["keypoint_names"]) == 17
    mask_cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    assert onnx_detector.metadata_of(mask_cfg)["thing_classes"] == ["0", "1"]


@pytest.mark.parametrize("size", [0.5, 3.0, 200.0])
def test_onnx_decodes_keypoints_as_detectron2(size: float) -> None:
    maps, boxes = torch.randn(9, 17, 56, 56), size * torch.rand(9, 4)
    boxes[:, 2:] += boxes[:, :2]
    found, expected = onnx_detector._decode(maps, boxes), heatmaps_to_keypoints(maps, boxes)
    assert found[..., :2].equal(expected[..., :2])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("subsample", ["input", "embedding", "none"])
@pytest.mark.parametrize("pairwise", ["gaussian", "embedded_gaussian", "dot_product", "concatenation"])
@pytest.mark.slow
def test_onnx_block(pairwise: str, subsample: str, tmp_path: Path) -> None:
    """Sizes that the export has not seen; every norm and scale in turn."""
    index = len(pairwise) + len(subsample)
    norm, scale = NORMS[index % len(NORMS)], bool(index % 2)
    block = NonLocalBlock(32, pairwise=pairwise, subsample=subsample, norm=norm, scale=scale).eval()
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    onnx_graphs.export_blocks(torch.nn.Sequential(block), tmp_path)
    sizes = [(4, 11, 3), (1, 2, 13), (2, 3, 3)] + [(1, 1, 5), (1, 1, 1)] * (subsample == "none")
    for batch, height, width in sizes:
        x = torch.randn(batch, 32, height, width)
        torch.testing.assert_close(run_onnx(tmp_path / "0.onnx", x), [block(x)], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_onnx_blocks_of_a_model(run: Export, tmp_path: Path) -> None:
    run(MASK, "onnx-block", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["backbone.bottom_up.res4.non_local_1.onnx"]


@pytest.mark.slow
def test_wrong_onnx_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = NonLocalBlock(32, norm="").eval()
    block.out.weight.normal_()
    (tmp_path / "0.onnx").write_bytes(b"old")
    session = onnxruntime.InferenceSession
    run_session = session.run
    monkeypatch.setattr(session, "run", lambda *args: [1.001 * y for y in run_session(*args)])
    with pytest.raises(UserError, match=r"differs from eager PyTorch by 1\.0e-03 of the largest value"):
        onnx_graphs.export_blocks(torch.nn.Sequential(block), tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("0.onnx", b"old")]


@pytest.mark.slow
def test_onnx_backbone(run: Export, mask_cfg: CfgNode, tmp_path: Path) -> None:
    """At a size that the export has not seen."""
    assert "its outputs: p2, p3, p4, p5, p6" in run(MASK, "onnx-backbone", tmp_path / "backbone.onnx")
    x = torch.randn(1, 3, 64, 192)
    expected = program.load_model(mask_cfg).backbone(x)
    for found, value in zip(run_onnx(tmp_path / "backbone.onnx", x), expected.values(), strict=True):
        torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-4)


def test_weights(mask_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the file. An untrained block is said to be the identity; random weights never are."""
    program.load_model(mask_cfg)
    printed = capsys.readouterr().out
    assert "random weights" in printed
    assert "adds little" not in printed
    state = build_model(mask_cfg).state_dict()
    mask_cfg.MODEL.WEIGHTS = str(tmp_path / "model.pth")
    torch.save(state, mask_cfg.MODEL.WEIGHTS)
    loaded = program.load_model(mask_cfg)
    assert "res4.non_local_1 adds little or nothing to its input" in capsys.readouterr().out
    assert all(tensor.equal(state[name]) for name, tensor in loaded.state_dict().items())
    del state["backbone.fpn_lateral2.weight"]
    torch.save(state, mask_cfg.MODEL.WEIGHTS)
    with pytest.raises(UserError, match=r"does not hold all of this model.*--allow-mismatch"):
        program.load_model(mask_cfg)
    program.load_model(mask_cfg, allow_mismatch=True)


@pytest.mark.parametrize("wrong", [1.001, float("inf"), float("nan")])
def test_tensors_that_differ(wrong: float) -> None:
    right = torch.ones(3)
    checking.check_tensors([right * 1.00001], [right], "right")
    with pytest.raises(UserError, match="differs from eager PyTorch by"):
        checking.check_tensors([right, right * wrong], [right, right], "wrong")


def detections(count: int) -> checking.Detections:
    boxes = 100 * torch.rand(count, 4)
    return {"pred_boxes": boxes, "scores": torch.rand(count), "pred_classes": torch.arange(count) % 3}


def test_detections_are_compared_as_a_set(capsys: pytest.CaptureFixture[str]) -> None:
    """Another order and one flipped detection of 20 are rounding; two of them, or two too few, are not."""
    expected, order = detections(20), torch.randperm(20)
    found = {name: value[order] for name, value in expected.items()}
    checking.check_detections([found], [expected])
    found["pred_boxes"][0] += 1
    checking.check_detections([found], [expected])
    printed = capsys.readouterr().out
    assert printed == "".join(
        f"  20 detections, eager 20; the same: {same}, to 0.0e+00\n" for same in (20, 19)
    )
    found["scores"][1] += 0.1
    for other in (found, {name: value[:18] for name, value in expected.items()}, detections(0)):
        with pytest.raises(UserError, match=r"has \d+ of eager PyTorch's 20 detections"):
            checking.check_detections([other], [expected])
    with pytest.raises(UserError, match="has 18 of eager PyTorch's 18 detections"):
        checking.check_detections([expected], [{name: value[:18] for name, value in expected.items()}])
    with pytest.raises(UserError, match="has 0 of eager PyTorch's 0 detections"):
        checking.check_detections([expected], [detections(0)])
    none = detections(0)
    checking.check_detections([none, expected], [none, expected])
    assert "nothing was compared" not in capsys.readouterr().out
    checking.check_detections([none], [none])
    assert "nothing was compared. Give another --input" in capsys.readouterr().out


def test_scores_of_keypoints_hide_no_pixels() -> None:
    """They have no bound: a difference of a pixel is 1e-4 of a score of 1e4."""
    expected = {**detections(1), "pred_keypoints": torch.tensor([[[50.0, 60.0, 1e6]]])}
    found = {**expected, "pred_keypoints": torch.tensor([[[51.0, 60.0, 1e6]]])}
    with pytest.raises(UserError, match="has 0 of"):
        checking.check_detections([found], [expected])


def test_image_is_resized_as_in_testing(mask_cfg: CfgNode, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (250, 100, 5)).save(tmp_path / "image.png")
    for format_, colour in (("BGR", [5, 100, 250]), ("RGB", [250, 100, 5])):
        mask_cfg.INPUT.FORMAT = format_
        image, other = program.sample_images(mask_cfg, tmp_path / "image.png")
        assert image[:, 0, 0].tolist() == colour
        assert other[:, 0, 0].tolist() == pytest.approx(colour)
    assert (image.shape, other.shape) == ((3, 96, 144), (3, 72, 72))


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("torchscript-trace", "--input gone.png", "'gone.png' cannot be read"),
        ("torchscript-trace", "MODEL.META_ARCHITECTURE PanopticFPN", "PanopticFPN. Use onnx-backbone."),
        ("torchscript-script", "MODEL.ROI_HEADS.NAME CascadeROIHeads", "Heads. Use torchscript-trace."),
        ("torchscript-trace", "MODEL.RESNETS.DEFORM_ON_PER_STAGE [True]", "Use onnx-backbone or onnx-block."),
        ("onnx", "MODEL.RESNETS.DEFORM_ON_PER_STAGE [True]", "Use onnx-backbone or onnx-block."),
        ("onnx-block", f"--config-file {MASK.replace('_nl', '')}", "has no non-local block for onnx-block."),
        ("onnx-block", "--output file", "--output 'file' is not a folder. Give one for onnx-block."),
        ("onnx-backbone", "--output .", "--output '.' is not a file. Give one for onnx-backbone."),
    ],
)
def test_refused(
    kind: str, words: str, message: str, run: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    said = refusal(run, MASK, kind, "new", *words.split())
    assert said.startswith("error: ")
    assert message in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_missing_package(run: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for kind, output in (("onnx", tmp_path / "model.onnx"), ("onnx-block", tmp_path)):
        said = refusal(run, MASK, kind, output)
        assert said == f"error: --format {kind} needs the package onnxruntime. Run: pip install '.[export]'"
