"""Folders and files that cannot be written: refused before a run, and nothing is left half-written.

No permission stops a test that runs as root, and no test can fill a disk: what would fail is made to fail.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import convert_weights
import cv2
import pytest
import torch

from nl_detectron.checkpoint import export_block
from nl_detectron.data import write_shapes
from nl_detectron.layers import NonLocalBlock

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Refused = Callable[..., str]


def failing(code: int) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("flags", [(), ("--eval-only",)], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("", "OUTPUT_DIR must be not empty; got ''."),
        ("{tmp}/file", "OUTPUT_DIR must be a folder to write to; {tmp}/file is not: Not a directory."),
        ("{tmp}/file/below", "OUTPUT_DIR must be a folder to write to; {tmp}/file is not: Not a directory."),
        ("/dev/full", "OUTPUT_DIR must be a folder to write to; /dev/full is not: Not a directory."),
        ("/proc/nowhere", "OUTPUT_DIR must be a folder to write to; /proc is not: "),
    ],
)
def test_no_folder(folder: str, message: str, flags: tuple[str], refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refused("--config-file", MASK, *flags, "OUTPUT_DIR", folder.format(tmp=tmp_path))
    assert said.startswith(message.format(tmp=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_refuses(
    code: int, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission, on a read-only file system, on a full disk."""
    monkeypatch.setattr("nl_detectron.engine.preflight.TemporaryFile", failing(code))
    message = refused("--config-file", MASK, "OUTPUT_DIR", str(tmp_path / "new"))
    assert message == f"OUTPUT_DIR must be a folder to write to; {tmp_path} is not: {os.strerror(code)}."
    assert list(tmp_path.iterdir()) == []


def convert(folder: Path, output: str) -> list[str]:
    block = export_block(NonLocalBlock(8, subsample="none"), "mmcv")
    torch.save({f"nl.{name}": tensor for name, tensor in block.items()}, folder / "theirs.pth")
    words = f"import --layout mmcv --blocks nl=ours --source {folder}/theirs.pth --output {output}"
    return words.split()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{tmp}/theirs.pth", "the output must be a new file; got {tmp}/theirs.pth, which exists."),
        ("{tmp}/no/new.pth", "--output must be in a folder that is there; got '{tmp}/no/new.pth'."),
        ("{tmp}/theirs.pth/new.pth", "--output must be in a folder that is there; got '{tmp}/theirs.pth/new"),
        ("{tmp}/new.txt", "--output must be a .pth file; got '{tmp}/new.txt'."),
    ],
)
def test_converted_weights(output: str, message: str, refused: Refused, tmp_path: Path) -> None:
    words = convert(tmp_path, output.format(tmp=tmp_path))
    assert refused(*words, program=convert_weights.main).startswith(message.format(tmp=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_converted_weights_on_a_disk_that_refuses(
    code: int, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = convert(tmp_path, f"{tmp_path}/new.pth")
    monkeypatch.setattr(torch, "save", failing(code))
    assert os.strerror(code) in refused(*words, program=convert_weights.main)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]


def test_images_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imwrite", lambda *args: False)
    with pytest.raises(OSError, match=r"train/000000000000.jpg cannot be written"):
        write_shapes(tmp_path / "shapes", train=1, val=1)
    assert list(tmp_path.iterdir()) == []
