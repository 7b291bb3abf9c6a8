"""Weights: files that are none, not whole, of another model, or with code in them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
Refused = Callable[..., str]
DANGEROUS = ("weights_only", "add_safe_globals", "arbitrary code", "allowlist")  # PyTorch's recommendations


class Malicious:
    """Whoever unpickles it runs a command, which leaves a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def truncated(content: object, path: Path) -> None:
    torch.save(content, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def truncated_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content)[:-20])


def pickled(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def legacy(content: object, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-20])


TENSORS = {"model": {"weight": torch.zeros(100, 100)}}
ARRAYS = {"model": {"weight": torch.zeros(100, 100).numpy()}, "__author__": "a"}
NOT_WHOLE = "MODEL.WEIGHTS must be a whole checkpoint; '{path}' is empty or cut short."
NO_FILE = "MODEL.WEIGHTS must be a file or a URL; got '{path}', and there is no such file."
NO_DICT = "{path} must be a checkpoint, a dict; got 'list'."


@pytest.mark.parametrize("flags", [(), ("--eval-only",)], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("absent.pth", lambda path: None, NO_FILE),
        ("folder.pth", Path.mkdir, NO_FILE),
        ("empty.pth", Path.touch, NOT_WHOLE),
        ("empty.pkl", Path.touch, NOT_WHOLE),
        ("cut.pth", lambda path: truncated(TENSORS, path), NOT_WHOLE),
        ("cut_old.pth", lambda path: legacy(TENSORS, path), "MODEL.WEIGHTS '{path}' cannot be loaded: "),
        ("cut.pkl", lambda path: truncated_pickle(ARRAYS, path), "{path} cannot be read ("),
        ("text.pth", lambda path: path.write_text("text"), "MODEL.WEIGHTS '{path}' cannot be loaded"),
        ("text.pkl", lambda path: path.write_text("text"), "{path} cannot be read ("),
        ("list.pkl", lambda path: pickled([1], path), NO_DICT),
        ("number.pkl", lambda path: pickled(3, path), "{path} must be a checkpoint, a dict; got 'int'."),
        ("list.pth", lambda path: torch.save([1], path), "{path}"),
        ("tensors.pkl", lambda path: pickled(TENSORS, path), "{path} cannot be read ("),
        (
            "model.pth",
            lambda path: torch.save(torch.nn.Linear(1, 1), path),
            "{path} is not a checkpoint, or holds other things than",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value[:12] else "",
)
def test_what_is_no_checkpoint(
    name: str,
    write: Callable[[Path], None],
    message: str,
    flags: tuple[str],
    refused: Refused,
    tmp_path: Path,
) -> None:
    path = tmp_path / name
    write(path)
    said = refused("--config-file", MASK, *flags, "MODEL.WEIGHTS", str(path))
    assert message.format(path=path) in said
    assert not [word for word in DANGEROUS if word in said]


@pytest.mark.parametrize("flags", [(), ("--eval-only",)], ids=["train", "evaluate"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evil.pth", "evil.pth is not a checkpoint, or holds other things than tensors and numbers"),
        ("evil.pkl", "evil.pkl cannot be read ("),
    ],
)
def test_code_in_a_checkpoint_is_not_run(
    name: str, message: str, flags: tuple[str], refused: Refused, tmp_path: Path
) -> None:
    path, marker = tmp_path / name, tmp_path / "ran"
    (torch.save if name.endswith(".pth") else pickled)({"model": Malicious(marker)}, path)
    said = refused("--config-file", MASK, *flags, "MODEL.WEIGHTS", str(path))
    assert message in said
    assert not [word for word in DANGEROUS if word in said]
    assert not marker.exists()
    with path.open("rb") as file:  # as careless code would
        (pickle.load if name.endswith(".pkl") else lambda file: torch.load(file, weights_only=False))(file)
    assert marker.exists()


@pytest.mark.parametrize("name", ["other.pth", "other.pkl"])
def test_another_architecture_is_not_evaluated(name: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / name
    torch.save(TENSORS, path) if name.endswith(".pth") else pickled(ARRAYS, path)
    said = refused("--config-file", MASK, "--eval-only", "MODEL.WEIGHTS", str(path))
    assert said.startswith(
        f"MODEL.WEIGHTS must hold this model, and all of it, to evaluate it; of '{path}': "
    )


def test_a_checkpoint_without_permission(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the opening is made to fail."""
    path, open_path = tmp_path / "model.pth", Path.open
    torch.save(TENSORS, path)

    def refuse(self: Path, *args: object, **kwargs: object) -> object:
        if self == path:
            raise PermissionError(13, "Permission denied", str(path))
        return open_path(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    said = refused("--config-file", MASK, "MODEL.WEIGHTS", str(path))
    assert said == f"[Errno 13] Permission denied: '{path}'"


def test_an_address_that_nothing_reads(refused: Refused) -> None:
    said = refused("--config-file", MASK, "MODEL.WEIGHTS", "s3://bucket/model.pth")
    assert said.startswith("MODEL.WEIGHTS 's3://bucket/model.pth' cannot be loaded: ")


@pytest.mark.parametrize("name", ["model_0000099.pth", "../elsewhere.pth"])
def test_resume_of_a_checkpoint_that_is_gone(name: str, refused: Refused, tmp_path: Path) -> None:
    output = tmp_path.parent / f"{tmp_path.name}_run"
    output.mkdir()
    (output / "last_checkpoint").write_text(name)
    said = refused("--config-file", MASK, "--resume", "OUTPUT_DIR", str(output))
    assert (
        f"{output} must hold a whole checkpoint to --resume from; damaged or gone: {Path(name).name}." in said
    )
