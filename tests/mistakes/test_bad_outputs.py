"""Folders that cannot be written: refused before a run, and nothing is left half-written.

No permission stops a test that runs as root, and no test can fill a disk: what would fail is made to fail.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from runs import MASK

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("{tmp}/file", "OUTPUT_DIR '{tmp}/file' cannot be written to: {tmp}/file: Not a directory."),
        (
            "{tmp}/file/below",
            "OUTPUT_DIR '{tmp}/file/below' cannot be written to: {tmp}/file: Not",
        ),
    ],
)
def test_no_folder(folder: str, message: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused("--config-file", MASK, "OUTPUT_DIR", folder.format(tmp=tmp_path))
    assert said.startswith(message.format(tmp=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_refuses(
    code: int, refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission, on a read-only file system, on a full disk."""

    def fail(**options: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("nl_detectron.engine.checks.TemporaryFile", fail)
    message = refused("--config-file", MASK, "OUTPUT_DIR", str(tmp_path / "new"))
    expected = f"OUTPUT_DIR '{tmp_path / 'new'}' cannot be written to: {tmp_path}: {os.strerror(code)}."
    assert message == expected
    assert list(tmp_path.iterdir()) == []
