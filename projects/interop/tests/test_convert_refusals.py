"""What the command line refuses, in one line, and what it leaves alone."""

import pickle
from pathlib import Path

import pytest
import torch
from checkpoints_of_others import OURS, THEIRS, command, random_block, refused, write_theirs
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from nl_detectron_interop import write_checkpoint

from nl_detectron.checkpoint import Checkpointer


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
    option = refused([*arguments, "--option", "reduction=2"])
    assert "--option reduction=2 is not NAME=VALUE with a name of pairwise, scale, subsample, dim." in option
    wrong = refused([*arguments, "--option", "subsample=input"])
    assert f"--blocks {THEIRS['mmcv']}: subsample must be 'embedding' in this block" in wrong
    assert "dim must be 2 in this block" in refused([*arguments, "--option", "dim=3"])
    assert "names a block that another pair names" in refused([*arguments, "--blocks", f"x={OURS}"])
    assert "--blocks x is not FROM=TO." in refused([*arguments, "--blocks", "x"])
    assert "--blocks x=y=z is not FROM=TO." in refused([*arguments, "--blocks", "x=y=z"])
    unknown = refused([*arguments, "--blocks", "x=y"])
    assert f"--blocks x: --source does not have it. Its blocks: {THEIRS['mmcv']}." in unknown
    assert "must be a .pth: its readers tell" in refused(command("mmcv", source, tmp_path / "new.pkl"))
    assert "No such file" in refused(command("mmcv", tmp_path / "absent.pth", output))
    assert "exists already. Choose another name." in refused(command("mmcv", source, source))
    list_file = tmp_path / "list.pth"
    torch.save([1], list_file)
    assert "is no checkpoint: it holds a list, not a dict." in refused(command("mmcv", list_file, output))
    assert not output.exists()
    assert "is in a folder that does not exist." in refused(
        command("mmcv", source, tmp_path / "absent" / "new.pth")
    )


def test_refusals_of_export(mask_cfg: CfgNode, tmp_path: Path) -> None:
    config, source = tmp_path / "config.yaml", tmp_path / "model_final.pth"
    config.write_text(mask_cfg.dump())
    torch.save({"model": build_model(mask_cfg).state_dict()}, source)

    def export(layout: str, blocks: str, output: str, config: Path = config) -> str:
        words = f"export --layout {layout} --source {source} --config-file {config} --blocks {blocks}"
        return refused([*words.split(), "--output", str(tmp_path / output)])

    assert f"--blocks {OURS}: subsample must be 'none' or" in export("mmcv", f"{OURS}=x", "x.pth")
    assert f"--config-file does not have it. Its blocks: {OURS}." in export("mmcv", "y=x", "x.pth")
    assert "must be a .pkl: its readers tell" in export("caffe2", f"{OURS}=x", "x.pth")
    torch.save({"model": {f"{OURS}.g.weight": torch.ones(3)}}, source)
    assert "are not of the same block: Error(s) in loading" in export("caffe2", f"{OURS}=x", "x.pkl")
    config.write_text("MODEL: {NON_LOCAL: {SCALES: 1}}")
    assert "SCALES" in export("caffe2", f"{OURS}=x", "x.pkl")
    absent = export("caffe2", f"{OURS}=x", "x.pkl", tmp_path / "absent.yaml")
    assert "absent.yaml' is neither a file nor a shipped config." in absent


def test_export_with_the_config_of_another_variant(mask_cfg: CfgNode, tmp_path: Path) -> None:
    Checkpointer(build_model(mask_cfg), str(tmp_path)).save("ours")
    mask_cfg.MODEL.NON_LOCAL.PAIRWISE = "dot_product"
    (tmp_path / "config.yaml").write_text(mask_cfg.dump())
    files = f"--source {tmp_path / 'ours.pth'} --config-file {tmp_path / 'config.yaml'}"
    words = f"export --layout caffe2 {files} --blocks {OURS}=x --output {tmp_path / 'x.pkl'}"
    assert "it was trained as {'pairwise': 'embedded_gaussian'" in refused(words.split())
