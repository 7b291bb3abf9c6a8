"""The command line that moves blocks between checkpoints, with files as each implementation writes them."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints_of_others import (
    OPTIONS,
    OURS,
    THEIRS,
    TOLD,
    C,
    command,
    python2_pickle,
    random_block,
    write_theirs,
)
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from nl_detectron_interop import convert, export_block, import_block, tensors_in
from torch import Tensor, nn

from nl_detectron import NonLocalBlock
from nl_detectron.checkpoint import Checkpointer, read_checkpoint

PROGRAM = Path(__file__).parents[3] / "tools" / "convert_weights.py"


def model_of(cfg: CfgNode, layout: str) -> nn.Module:
    node = cfg.MODEL.NON_LOCAL
    for name, value in OPTIONS[layout].items():
        node[name.upper()] = value
    return build_model(cfg)


def loaded(model: nn.Module, path: Path) -> dict[str, Tensor]:
    DetectionCheckpointer(model).load(str(path))
    return model.state_dict()


@pytest.mark.parametrize("layout", OPTIONS)
def test_import_into_a_detector_and_export(
    layout: str, mask_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = random_block(layout)
    source, output = write_theirs(tmp_path, layout, block), tmp_path / "new.pth"
    convert.main(command(layout, source, output))
    line, *notes, written = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{THEIRS[layout]} -> {OURS}: C=256, d=128, dim=2, pairwise='")
    assert f"subsample={OPTIONS[layout]['subsample']!r}" in line
    told = {text.partition("=")[0] for text in TOLD[layout]}
    assumed = [name for name in ("pairwise", "scale", "subsample") if name not in told]
    said = f"without --option, as the tensors or the defaults of {layout} say: {', '.join(assumed)}"
    assert notes == [said]
    assert written == f"written: {output} (layout {layout}, blocks: 1, tensors: {len(block.state_dict())})"
    model = model_of(mask_cfg, layout)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in loaded(model, output).items():
        if name.startswith(OURS):
            torch.testing.assert_close(tensor, block.state_dict()[name.removeprefix(f"{OURS}.")])
        else:
            assert tensor.equal(before[name])

    config, back = tmp_path / "config.yaml", tmp_path / f"back{source.suffix.replace('yth', 'th')}"
    config.write_text(mask_cfg.dump())
    convert.main(
        f"export --layout {layout} --source {output} --config-file {config} "
        f"--blocks {OURS}={THEIRS[layout]} --output {back}".split()
    )
    count = len(tensors_in(read_checkpoint(back)))
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == f"written: {back} (layout {layout}, blocks: 1, tensors: {count})"
    assert b"numpy._core" not in back.read_bytes()  # which the numpy of the authors' time lacks
    exported, original = (read_checkpoint(path) for path in (back, source))
    exported, original = tensors_in(exported), tensors_in(original)
    assert exported.keys() == {name for name in original if name.startswith(THEIRS[layout])}
    for name, tensor in exported.items():
        torch.testing.assert_close(tensor, original[name])


def stock_tensors(model: nn.Module) -> dict[str, np.ndarray]:
    """Other values for the convolutions of the ResNet."""
    return {
        name.removeprefix("backbone.bottom_up."): np.random.default_rng(0)
        .normal(size=tensor.shape)
        .astype("float32")
        for name, tensor in model.state_dict().items()
        if name.startswith("backbone.bottom_up.") and "conv" in name and "norm" not in name
    }


@pytest.mark.parametrize("form", ["Caffe2", "heuristics", "full names", "DataParallel", "torchvision"])
def test_the_rest_of_the_model_loads_as_without_the_tool(
    form: str, mask_cfg: CfgNode, tmp_path: Path
) -> None:
    def loaded(model: nn.Module, path: Path) -> dict[str, Tensor]:  # Detectron2 does not know torchvision's
        (Checkpointer if form == "torchvision" else DetectionCheckpointer)(model).load(str(path))
        return model.state_dict()

    model = model_of(mask_cfg, "mmcv")
    stock = stock_tensors(model)
    path = tmp_path / ("stock.pkl" if form in ("Caffe2", "heuristics") else "stock.pth")
    if form == "Caffe2":
        names = {"stem.conv1.weight": "conv1_w"}
        for name in stock:
            short = name.replace(".conv1.weight", "_branch2a_w").replace(".conv2.weight", "_branch2b_w")
            names.setdefault(name, short.replace(".", "_"))
        path.write_bytes(python2_pickle({names[name]: array for name, array in stock.items()}))
    elif form == "heuristics":
        content = {"model": stock, "__author__": "torchvision", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
    elif form == "torchvision":
        stages = {f"res{k + 1}": f"layer{k}" for k in range(1, 5)}
        names = {name: name.replace(name[:4], stages.get(name[:4], name[:4])) for name in stock}
        stock_of_torchvision = {names[name].removeprefix("stem."): array for name, array in stock.items()}
        torch.save({name: torch.from_numpy(array) for name, array in stock_of_torchvision.items()}, path)
    else:
        prefix = "module." * (form == "DataParallel") + "backbone.bottom_up."
        full = {f"{prefix}{name}": torch.from_numpy(array) for name, array in stock.items()}
        torch.save({"model": full, "iteration": 9}, path)
    initial = copy.deepcopy(model)
    expected = {name: tensor.clone() for name, tensor in loaded(model, path).items()}
    assert expected["backbone.bottom_up.res4.0.conv2.weight"].equal(
        torch.from_numpy(stock["res4.0.conv2.weight"])
    )

    block = random_block("mmcv")
    source, output = write_theirs(tmp_path, "mmcv", block), tmp_path / "new.pth"
    convert.main(command("mmcv", source, output, "--weights", path))
    found = loaded(initial, output)
    expected |= {f"{OURS}.{name}": tensor for name, tensor in block.state_dict().items()}
    assert [name for name in expected if not found[name].equal(expected[name])] == []


def test_a_block_that_was_there_is_gone(tmp_path: Path) -> None:
    """With all its tensors, also those that the new one lacks."""
    torch.save(
        {f"{OURS}.w_f.weight": torch.zeros(1), f"{OURS}1.g.weight": torch.zeros(1)}, tmp_path / "old.pth"
    )
    block = random_block("mmcv")
    source, output = write_theirs(tmp_path, "mmcv", block), tmp_path / "new.pth"
    convert.main(command("mmcv", source, output, "--weights", tmp_path / "old.pth"))
    assert torch.load(output)["model"].keys() == {
        f"{OURS}1.g.weight",
        *(f"{OURS}.{k}" for k in block.state_dict()),
    }


def test_several_blocks(tmp_path: Path) -> None:
    """One name begins like the other."""
    blocks = {"s4.1": random_block("alexhex7"), "s4.11": random_block("alexhex7")}
    tensors = {
        f"{place}.{name}": tensor
        for place, block in blocks.items()
        for name, tensor in export_block(block, "alexhex7").items()
    }
    source, output = tmp_path / "source.pth", tmp_path / "new.pth"
    torch.save(tensors, source)
    convert.main(
        f"import --layout alexhex7 --source {source} --blocks s4.1=a s4.11=b --output {output}".split()
    )
    model = torch.load(output)["model"]
    for place, block in zip("ab", blocks.values(), strict=True):
        assert all(model[f"{place}.{name}"].equal(t) for name, t in block.state_dict().items())
    assert len(model) == 2 * len(block.state_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.pth", "source.pth"]


def test_a_video_block_can_stay_one(tmp_path: Path) -> None:
    block = NonLocalBlock(C, dim=3, subsample="none", scale=False)
    source, output = write_theirs(tmp_path, "caffe2", block), tmp_path / "new.pth"
    convert.main(command("caffe2", source, output, "--option", "dim=3"))
    assert torch.load(output)["model"][f"{OURS}.g.weight"].shape == (C // 2, C, 1, 1, 1)


def test_the_variants_of_other_blocks_are_kept(mask_cfg: CfgNode, tmp_path: Path) -> None:
    """A checkpoint of ours says which variant its blocks are; an import adds to that."""
    mask_cfg.MODEL.NON_LOCAL.RES4 = [0]
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("ours")
    source = write_theirs(tmp_path, "mmcv", random_block("mmcv"))
    output = tmp_path / "new.pth"
    convert.main(command("mmcv", source, output, "--weights", tmp_path / "ours.pth"))
    variants = torch.load(output, weights_only=True)["non_local"]
    assert variants["backbone.bottom_up.res4.non_local_0"]["pairwise"] == "embedded_gaussian"
    assert variants[OURS] == {"pairwise": "dot_product", "subsample": "embedding"}


@pytest.mark.long
@pytest.mark.slow
def test_as_a_program(tmp_path: Path) -> None:
    block = random_block("caffe2")
    source, output = write_theirs(tmp_path, "caffe2", block), tmp_path / "new.pth"
    program = [sys.executable, "-W", "ignore", str(PROGRAM)]
    result = subprocess.run([*program, *command("caffe2", source, output)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    first, _, written = result.stdout.splitlines()
    assert first.startswith("nonlocal_conv4_5 -> ")
    assert (
        written
        == f"written: {output} (layout caffe2, blocks: 1, tensors: {len(torch.load(output)['model'])})"
    )
    imported = import_block(export_block(block, "caffe2"), "caffe2", dim=2, **OPTIONS["caffe2"])
    model = torch.load(output)["model"]
    assert all(model[f"{OURS}.{name}"].equal(t) for name, t in imported.state_dict().items())
