"""The command line that moves blocks between checkpoints, with files as each implementation writes them."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from nl_detectron_interop import convert as convert_weights
from nl_detectron_interop import export_block, import_block, write_checkpoint
from torch import Tensor, nn

from nl_detectron import NonLocalBlock
from nl_detectron.checkpoint import Checkpointer

C = 256  # channels of res4 in R18
OURS = "backbone.bottom_up.res4.non_local_1"
THEIRS = {
    "mmcv": "backbone.layer3.0.non_local_block",
    "alexhex7": "nl_1",
    "slowfast": "s4.pathway0_nonlocal5",
    "caffe2": "nonlocal_conv4_5",
}
OPTIONS = {
    "mmcv": {"subsample": "embedding", "pairwise": "dot_product"},
    "alexhex7": {"subsample": "embedding", "scale": False},
    "slowfast": {"subsample": "input", "pairwise": "embedded_gaussian"},
    "caffe2": {"subsample": "none", "scale": False},
}
TOLD = {  # what the names of these tensors do not show and is no default
    "mmcv": ["pairwise=dot_product"],
    "alexhex7": [],
    "slowfast": ["pairwise=embedded_gaussian"],
    "caffe2": ["subsample=none", "scale=False"],
}


def random_block(layout: str) -> NonLocalBlock:
    block = NonLocalBlock(C, **OPTIONS[layout])
    for name, tensor in block.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0) if "var" in name else tensor.normal_(std=0.1)
    return block


def write_theirs(folder: Path, layout: str, block: NonLocalBlock) -> Path:
    """A checkpoint with the block, and with something else."""
    separator = "_" if layout == "caffe2" else "."
    tensors = {f"{THEIRS[layout]}{separator}{n}": t for n, t in export_block(block, layout).items()}
    tensors["conv1_w"] = torch.ones(3)
    wrapper = {"mmcv": "state_dict", "slowfast": "model_state", "caffe2": "blobs"}.get(layout)
    content = {wrapper: tensors, "epoch": 3} if wrapper else tensors
    path = folder / {"caffe2": "theirs.pkl", "slowfast": "theirs.pyth"}.get(layout, "theirs.pth")
    if layout != "caffe2":
        torch.save(content, path)
        return path
    blobs = {name: tensor.numpy() for name, tensor in tensors.items()}
    path.write_bytes(python2_pickle({**blobs, "lr": np.float32(0.01), "model_iter": 7}))
    return path


def python2_pickle(blobs: dict[str, np.ndarray]) -> bytes:
    """As the authors' code saves it: protocol 2, and numpy's module under its old name."""
    blobs = {**blobs, "conv1_w_momentum": np.zeros(3)}
    return pickle.dumps({"blobs": blobs}, protocol=2).replace(b"numpy._core", b"numpy.core")


def model_of(cfg: CfgNode, layout: str) -> nn.Module:
    node = cfg.MODEL.NON_LOCAL
    for name, value in OPTIONS[layout].items():
        node[name.upper()] = value
    return build_model(cfg)


def loaded(model: nn.Module, path: Path) -> dict[str, Tensor]:
    DetectionCheckpointer(model).load(str(path))
    return model.state_dict()


def command(layout: str, source: Path, output: Path, *more: object) -> list[str]:
    options = [word for text in TOLD[layout] for word in ("--option", text)]
    blocks = ["--blocks", f"{THEIRS[layout]}={OURS}"]
    arguments = ["--layout", layout, "--source", source, *blocks, *options, "--output", output, *more]
    return ["import", *map(str, arguments)]


def refused(arguments: list[str]) -> str:
    """The line that is printed."""
    with pytest.raises(SystemExit) as error:
        convert_weights.main(arguments)
    (line,) = str(error.value).splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("layout", OPTIONS)
def test_import_into_a_detector_and_export(
    layout: str, mask_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = random_block(layout)
    source, output = write_theirs(tmp_path, layout, block), tmp_path / "new.pth"
    convert_weights.main(command(layout, source, output))
    line = capsys.readouterr().out
    assert line.startswith(f"{THEIRS[layout]} -> {OURS}: C=256, d=128, dim=2, pairwise='")
    assert f"subsample={OPTIONS[layout]['subsample']!r}" in line
    model = model_of(mask_cfg, layout)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in loaded(model, output).items():
        if name.startswith(OURS):
            torch.testing.assert_close(tensor, block.state_dict()[name.removeprefix(f"{OURS}.")])
        else:
            assert tensor.equal(before[name])

    config, back = tmp_path / "config.yaml", tmp_path / f"back{source.suffix.replace('yth', 'th')}"
    config.write_text(mask_cfg.dump())
    convert_weights.main(
        f"export --layout {layout} --source {output} --config-file {config} "
        f"--blocks {OURS}={THEIRS[layout]} --output {back}".split()
    )
    assert b"numpy._core" not in back.read_bytes()  # which the numpy of the authors' time lacks
    exported, original = (convert_weights.read_checkpoint(path) for path in (back, source))
    exported, original = convert_weights.tensors_in(exported), convert_weights.tensors_in(original)
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


@pytest.mark.parametrize("form", ["Caffe2", "heuristics", "full names"])
def test_the_rest_of_the_model_loads_as_without_the_tool(
    form: str, mask_cfg: CfgNode, tmp_path: Path
) -> None:
    model = model_of(mask_cfg, "mmcv")
    stock = stock_tensors(model)
    path = tmp_path / ("stock.pth" if form == "full names" else "stock.pkl")
    if form == "Caffe2":
        names = {"stem.conv1.weight": "conv1_w"}
        for name in stock:
            short = name.replace(".conv1.weight", "_branch2a_w").replace(".conv2.weight", "_branch2b_w")
            names.setdefault(name, short.replace(".", "_"))
        path.write_bytes(python2_pickle({names[name]: array for name, array in stock.items()}))
    elif form == "heuristics":
        content = {"model": stock, "__author__": "torchvision", "matching_heuristics": True}
        path.write_bytes(pickle.dumps(content))
    else:
        full = {f"backbone.bottom_up.{name}": torch.from_numpy(array) for name, array in stock.items()}
        torch.save({"model": full, "iteration": 9}, path)
    initial = copy.deepcopy(model)
    expected = {name: tensor.clone() for name, tensor in loaded(model, path).items()}
    assert expected["backbone.bottom_up.res4.0.conv2.weight"].equal(
        torch.from_numpy(stock["res4.0.conv2.weight"])
    )

    block = random_block("mmcv")
    source, output = write_theirs(tmp_path, "mmcv", block), tmp_path / "new.pth"
    convert_weights.main(command("mmcv", source, output, "--weights", path))
    found = loaded(initial, output)
    expected |= {f"{OURS}.{name}": tensor for name, tensor in block.state_dict().items()}
    assert [name for name in expected if not found[name].equal(expected[name])] == []


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
    convert_weights.main(
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
    convert_weights.main(command("caffe2", source, output, "--option", "dim=3"))
    assert torch.load(output)["model"][f"{OURS}.g.weight"].shape == (C // 2, C, 1, 1, 1)


class Malicious:
    def __reduce__(self) -> tuple:
        return print, ("it ran",)


@pytest.mark.parametrize("name", ["theirs.pkl", "theirs.pth"])
def test_no_code_in_a_file_is_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"blobs": {"theta_w": Malicious()}}))
    else:
        torch.save({"state_dict": Malicious()}, path)
    assert f"{path} cannot be read" in refused(command("mmcv", path, tmp_path / "new.pth"))
    assert "it ran" not in capsys.readouterr().out


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    for name in ("x.pth", "x.pkl"):
        with pytest.raises((AttributeError, pickle.PicklingError)):
            write_checkpoint(tmp_path / name, {"x": lambda: None})
    assert list(tmp_path.iterdir()) == []


def test_refusals_of_import(tmp_path: Path) -> None:
    source, output = write_theirs(tmp_path, "mmcv", random_block("mmcv")), tmp_path / "new.pth"
    arguments = command("mmcv", source, output)
    assert (
        "--option must be NAME=VALUE with one of the names pairwise, scale, subsample, dim; got"
        in refused([*arguments, "--option", "reduction=2"])
    )
    wrong = refused([*arguments, "--option", "subsample=input"])
    assert f"--blocks {THEIRS['mmcv']}: subsample must be 'embedding' in this block" in wrong
    assert "dim must be 2 in this block" in refused([*arguments, "--option", "dim=3"])
    assert "--blocks must be FROM=TO, every block once" in refused([*arguments, "--blocks", f"x={OURS}"])
    assert "--blocks must be FROM=TO" in refused([*arguments, "--blocks", "x"])
    assert "--blocks must be FROM=TO" in refused([*arguments, "--blocks", "x=y=z"])
    unknown = refused([*arguments, "--blocks", "x=y"])
    assert f"--blocks x: the block must be in the source; got 'x'. It has {THEIRS['mmcv']}." in unknown
    assert "--output must be a .pth file" in refused(command("mmcv", source, tmp_path / "new.pkl"))
    assert "No such file" in refused(command("mmcv", tmp_path / "absent.pth", output))
    assert "must be a new file" in refused(command("mmcv", source, source))
    list_file = tmp_path / "list.pth"
    torch.save([1], list_file)
    assert "must be a checkpoint, a dict; got 'list'" in refused(command("mmcv", list_file, output))
    assert not output.exists()
    assert "in a folder that is there" in refused(command("mmcv", source, tmp_path / "absent" / "new.pth"))


def test_refusals_of_export(mask_cfg: CfgNode, tmp_path: Path) -> None:
    config, source = tmp_path / "config.yaml", tmp_path / "model_final.pth"
    config.write_text(mask_cfg.dump())
    torch.save({"model": build_model(mask_cfg).state_dict()}, source)

    def export(layout: str, blocks: str, output: str, config: Path = config) -> str:
        words = f"export --layout {layout} --source {source} --config-file {config} --blocks {blocks}"
        return refused([*words.split(), "--output", str(tmp_path / output)])

    assert f"--blocks {OURS}: subsample must be 'none' or" in export("mmcv", f"{OURS}=x", "x.pth")
    assert f"got 'y'. It has {OURS}." in export("mmcv", "y=x", "x.pth")
    assert "--output must be a .pkl file" in export("caffe2", f"{OURS}=x", "x.pth")
    torch.save({"model": {f"{OURS}.g.weight": torch.ones(3)}}, source)
    assert "are not of the same block: RuntimeError" in export("caffe2", f"{OURS}=x", "x.pkl")
    config.write_text("MODEL: {NON_LOCAL: {SCALES: 1}}")
    assert "SCALES" in export("caffe2", f"{OURS}=x", "x.pkl")
    absent = export("caffe2", f"{OURS}=x", "x.pkl", tmp_path / "absent.yaml")
    assert "--config-file must be a file or a config" in absent


def test_the_variants_of_other_blocks_are_kept(mask_cfg: CfgNode, tmp_path: Path) -> None:
    """A checkpoint of ours says which variant its blocks are; an import adds to that."""
    mask_cfg.MODEL.NON_LOCAL.RES4 = [0]
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("ours")
    source = write_theirs(tmp_path, "mmcv", random_block("mmcv"))
    output = tmp_path / "new.pth"
    convert_weights.main(command("mmcv", source, output, "--weights", tmp_path / "ours.pth"))
    variants = torch.load(output, weights_only=True)["non_local"]
    assert variants["backbone.bottom_up.res4.non_local_0"]["pairwise"] == "embedded_gaussian"
    assert variants[OURS] == {"pairwise": "dot_product", "subsample": "embedding"}


def test_export_with_the_config_of_another_variant(mask_cfg: CfgNode, tmp_path: Path) -> None:
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("ours")
    mask_cfg.MODEL.NON_LOCAL.PAIRWISE = "dot_product"
    (tmp_path / "config.yaml").write_text(mask_cfg.dump())
    files = f"--source {tmp_path / 'ours.pth'} --config-file {tmp_path / 'config.yaml'}"
    words = f"export --layout caffe2 {files} --blocks {OURS}=x --output {tmp_path / 'x.pkl'}"
    assert "--config-file must be of the variant that --source was trained as" in refused(words.split())


def test_as_a_program(tmp_path: Path) -> None:
    block = random_block("caffe2")
    source, output = write_theirs(tmp_path, "caffe2", block), tmp_path / "new.pth"
    program = [sys.executable, "-W", "ignore", convert_weights.__file__]
    result = subprocess.run([*program, *command("caffe2", source, output)], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    imported = import_block(export_block(block, "caffe2"), "caffe2", dim=2, **OPTIONS["caffe2"])
    model = torch.load(output)["model"]
    assert all(model[f"{OURS}.{name}"].equal(t) for name, t in imported.state_dict().items())
