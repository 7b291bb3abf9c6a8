"""Weights: files that are no checkpoint, damaged, of another model, or with code in them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Refused = Callable[..., str]
DANGEROUS = ("weights_only", "add_safe_globals", "arbitrary code", "allowlist")  # PyTorch's recommendations
TENSORS = {"model": {"weight": torch.zeros(100, 100)}}
ARRAYS = {"model": {"weight": torch.zeros(100, 100).numpy()}, "__author__": "a"}


class Malicious:
    """Whoever unpickles it runs a command, which leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def truncated(path: Path) -> None:
    pickled(ARRAYS, path) if path.suffix == ".pkl" else torch.save(TENSORS, path)
    cut(path)


def legacy(path: Path) -> None:
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)
    cut(path)


NO_FILE = "MODEL.WEIGHTS '{path}' does not exist."
UNREADABLE = "{path} cannot be read as a checkpoint: "


def check_refused(
    name: str, write: Callable[[Path], None], message: str, refused: Refused, folder: Path
) -> None:
    path = folder / name
    write(path)
    said = refused("--config-file", MASK, "MODEL.WEIGHTS", str(path))
    assert message.format(path=path) in said
    assert not [word for word in DANGEROUS if word in said]


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("absent.pth", lambda path: None, NO_FILE),
        ("empty.pth", Path.touch, UNREADABLE),
        ("cut.pth", truncated, UNREADABLE),
        ("cut.pkl", truncated, UNREADABLE),
        ("list.pth", lambda path: torch.save([1], path), "{path}"),
        (
            "wrapped.pth",
            lambda path: torch.save({"state_dict": {"a": torch.ones(1), "b": {}}}, path),
            "{path} does not hold tensors by their names: 'b' is a dict. Save the state dict alone.",
        ),
        ("model.pth", lambda path: torch.save(torch.nn.Linear(1, 1), path), UNREADABLE + "it holds more"),
    ],
)
def test_what_is_no_checkpoint(
    name: str, write: Callable[[Path], None], message: str, refused: Refused, tmp_path: Path
) -> None:
    check_refused(name, write, message, refused, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("folder.pth", Path.mkdir, NO_FILE),
        ("empty.pkl", Path.touch, UNREADABLE),
        ("cut_old.pth", legacy, UNREADABLE),
        ("text.pth", lambda path: path.write_text("text"), UNREADABLE),
        ("list.pkl", lambda path: pickled([1], path), "{path} is no checkpoint: it holds a list"),
        ("tensors.pkl", lambda path: pickled(TENSORS, path), UNREADABLE),
    ],
)
def test_what_else_is_no_checkpoint(
    name: str, write: Callable[[Path], None], message: str, refused: Refused, tmp_path: Path
) -> None:
    check_refused(name, write, message, refused, tmp_path)


@pytest.mark.parametrize("flags", [(), ("--eval-only",)], ids=["train", "evaluate"])
@pytest.mark.parametrize("name", ["evil.pth", "evil.pkl"])
def test_code_in_a_checkpoint_is_not_run(
    name: str, flags: tuple[str], refused: Refused, tmp_path: Path
) -> None:
    path, marker = tmp_path / name, tmp_path / "ran"
    (torch.save if name.endswith(".pth") else pickled)({"model": Malicious(marker)}, path)
    said = refused("--config-file", MASK, *flags, "MODEL.WEIGHTS", str(path))
    assert f"{path} cannot be read as a checkpoint: it " in said
    assert not [word for word in DANGEROUS if word in said]
    assert not marker.exists()
    with path.open("rb") as file:  # as careless code would
        (pickle.load if name.endswith(".pkl") else lambda file: torch.load(file, weights_only=False))(file)
    assert marker.exists()


@pytest.mark.parametrize("flags", [(), ("--eval-only",), ("--eval-only", "--allow-mismatch")])
@pytest.mark.parametrize("name", ["other.pth", "other.pkl"])
def test_nothing_of_another_architecture_fits(
    name: str, flags: tuple[str], refused: Refused, tmp_path: Path
) -> None:
    """In training too, which would start from random weights."""
    path = tmp_path / name
    torch.save(TENSORS, path) if name.endswith(".pth") else pickled(ARRAYS, path)
    said = refused("--config-file", MASK, *flags, "MODEL.WEIGHTS", str(path))
    assert said.startswith(f"MODEL.WEIGHTS '{path}' fits no tensor of this model: it has weight. ")


def test_an_address_that_does_not_answer(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    said = refused("--config-file", MASK, "MODEL.WEIGHTS", "http://127.0.0.1:1/model.pth")
    assert said.startswith("MODEL.WEIGHTS http://127.0.0.1:1/model.pth cannot be downloaded: ")


@pytest.mark.parametrize("name", ["model_0000099.pth", "../elsewhere.pth"])
def test_resume_of_a_checkpoint_that_is_gone(name: str, refused: Refused, tmp_path: Path) -> None:
    output = tmp_path.parent / f"{tmp_path.name}_run"
    output.mkdir()
    (output / "last_checkpoint").write_text(name)
    said = refused("--config-file", MASK, "--resume", "OUTPUT_DIR", str(output))
    expected = f"{output} has no intact checkpoint to --resume from. Damaged or gone: {Path(name).name}."
    assert said.startswith(expected)
