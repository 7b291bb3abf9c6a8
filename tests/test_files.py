"""Atomic writing, also where a disk is full."""

import os
import resource
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.files import atomic_write


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_write(path) as unfinished:
        unfinished.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with atomic_write(path) as unfinished:
            unfinished.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_a_device_is_written_to(tmp_path: Path) -> None:
    link, target, pipe = (tmp_path / name for name in ("link", "target", "pipe"))
    link.symlink_to(target)
    with atomic_write(link) as unfinished:
        unfinished.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool, atomic_write(pipe) as itself:
        read = pool.submit(pipe.read_text)
        itself.write_text("new")
        assert read.result(10) == "new"
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["model_best.pth", "weights of May.bin"])
def test_a_checkpoint_is_written_where_a_link_leads(name: str, tmp_path: Path) -> None:
    archive, folder = tmp_path / "archive", tmp_path / "run"
    archive.mkdir(), folder.mkdir()
    (folder / "model_best.pth").symlink_to(archive / name)
    checkpointer = Checkpointer(nn.Linear(2, 3), str(folder))
    checkpointer.save("model_best")
    assert (folder / "model_best.pth").is_symlink()
    assert [path.name for path in archive.iterdir()] == [name]
    assert sorted(path.name for path in folder.iterdir()) == ["last_checkpoint", "model_best.pth"]
    assert torch.load(archive / name)["model"]["weight"].shape == (3, 2)
    assert checkpointer.save_dir == str(folder)


@pytest.fixture
def _little_room() -> Iterator[None]:
    """No file can become larger than 100 kB: only what the system calls it differs from a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("_little_room")
def test_a_checkpoint_that_does_not_fit_leaves_the_last_one(tmp_path: Path) -> None:
    Checkpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000001", iteration=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    large = Checkpointer(nn.Linear(1000, 1000), str(tmp_path))
    for name in ("model_0000002", "model_0000001"):
        with pytest.raises(ValueError, match=rf"{name}\.pth cannot be written: File too large. Correct that"):
            large.save(name, iteration=2)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert large.get_checkpoint_file() == str(tmp_path / "model_0000001.pth")
    assert torch.load(tmp_path / "model_0000001.pth", weights_only=True)["iteration"] == 1
