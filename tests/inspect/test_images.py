"""Which images a command line means, how they are read, and which are skipped."""

import os
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from nl_detectron.errors import UserError
from nl_detectron.inspect import find_images, read_image, read_images, sort_by_size, use_images

ORIENTATION = 0x0112  # of EXIF


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder and the user's home: images b.png, a.jpg, c[1].PNG, and what is none."""
    for name in ("b.png", "a.jpg", "c[1].PNG"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "sub.png").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["b.png"], "b.png"),
        (["."], "a.jpg b.png c[1].PNG"),
        (["b.png", "."], "b.png a.jpg c[1].PNG"),
        (["c[1].PNG"], "c[1].PNG"),
        (["*.png"], "b.png"),
        (["*"], "a.jpg b.png c[1].PNG"),
        (["[ab].*"], "a.jpg b.png"),
        (["notes.txt"], "notes.txt"),  # may be an image: it is reported when it is read
    ],
)
def test_find_images(inputs: list[str], names: str, folder: Path) -> None:
    assert [str(path) for path in find_images(inputs)] == names.split()


@pytest.mark.parametrize("name", ["~", "~/?.*"])
def test_home(name: str, folder: Path) -> None:
    assert folder / "a.jpg" in find_images([name])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([""], "--input is empty. Is a shell variable unset?"),
        ([], "--input is empty. Is a shell variable unset?"),
        (["no.jpg"], "--input 'no.jpg' names no image."),
        (["sub.png"], "--input 'sub.png' names no image."),
        (["*.txt"], "--input '*.txt' names no image."),
    ],
)
def test_no_images(inputs: list[str], message: str, folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_images(inputs)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("mode", "colour", "bgr"),
    [
        ("RGB", (250, 100, 5), (5, 100, 250)),
        ("RGBA", (250, 100, 5, 128), (5, 100, 250)),
        ("L", 70, (70, 70, 70)),
        ("CMYK", (0, 255, 255, 0), (0, 0, 255)),
    ],
)
def test_modes(mode: str, colour: object, bgr: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new(mode, (5, 3), colour).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype, image.flags.c_contiguous) == ((3, 5, 3), np.uint8, True)
    assert (image == bgr).all()


def test_upright(tmp_path: Path) -> None:
    """Orientation 6: the camera was turned, so that the first row of the file is the right side."""
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0] = 200
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / "image.png", exif=exif)
    image = read_image(tmp_path / "image.png")
    assert image[:, :, 0].tolist() == [[0, 200]] * 4


@pytest.mark.parametrize(("dtype", "mode"), [(np.uint16, "I;16"), (np.int32, "I"), (np.float32, "F")])
def test_more_than_8_bits(dtype: type, mode: str, tmp_path: Path) -> None:
    """Pillow would make all of it white."""
    path = tmp_path / "image.tif"
    Image.fromarray(np.full((3, 5), 1000, dtype)).save(path)
    with pytest.raises(UserError) as refused:
        read_image(path)
    reason = f"has more than 8 bits a channel (Pillow's mode {mode!r}). Convert it."
    assert str(refused.value) == f"'{path}' {reason}"


def test_broken_images_are_named(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(cv2.imencode(".jpg", photo)[1].tobytes()[:-400])
    with pytest.raises(UserError, match=r"image\.jpg' cannot be read: image file is truncated"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"image\.jpg' cannot be read: cannot identify image file"):
        read_image(path)
    path.unlink()
    with pytest.raises(UserError, match=r"image\.jpg' cannot be read: No such file or directory"):
        read_image(path)


def test_reason_without_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of Pillow's decoders assert."""
    monkeypatch.setattr("detectron2.data.detection_utils.read_image", Mock(side_effect=AssertionError))
    with pytest.raises(UserError, match=r"^'b.png' cannot be read: AssertionError$"):
        read_image(Path("b.png"))


@pytest.mark.parametrize("name", [os.fsdecode(b"bad\xff.png"), "two\nlines.png"])
def test_odd_names(name: str, folder: Path) -> None:
    (folder / "b.png").rename(name)
    assert read_image(find_images([name])[0]).shape == (3, 4, 3)
    Path(name).write_bytes(b"")
    with pytest.raises(UserError, match=r"^'.*' cannot be read: .*$") as refused:
        read_image(Path(name))
    assert "\n" not in str(refused.value)


def test_errors_keep_their_places(folder: Path) -> None:
    images = list(read_images([Path("gone.png"), Path("b.png"), Path("notes.txt"), Path("a.jpg")]))
    assert [isinstance(image, UserError) for image in images] == [True, False, True, False]
    assert images[1].shape == images[3].shape == (3, 4, 3)


def test_images_of_one_size_follow_each_other(folder: Path) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (4, 3)).save("a.jpg", exif=turned)  # 3 x 4, upright
    images = [Path(name) for name in ("b.png", "a.jpg", "notes.txt", "c[1].PNG", "gone.png")]
    assert [str(path) for path in sort_by_size(images)] == "notes.txt gone.png a.jpg b.png c[1].PNG".split()


def refuse_b(path: Path, _: np.ndarray) -> None:
    if path.name == "b.png":
        raise UserError(f"{path} has no use")


def test_skipped_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is gone, it is broken, it is of no use. The others are used."""
    (folder / "broken.png").touch()
    use = Mock(side_effect=refuse_b)
    with pytest.raises(UserError, match=r"^Skipped 3 of 4 images \(see above\)\.$"):
        use_images([Path(name) for name in ("gone.png", "broken.png", "b.png", "a.jpg")], use)
    assert [call.args[0].name for call in use.call_args_list] == ["b.png", "a.jpg"]
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "skipped: 'gone.png' cannot be read: No such file or directory"
    assert second.startswith("skipped: 'broken.png' cannot be read: cannot identify image file")
    assert third == "skipped: b.png has no use"


def test_one_image_has_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=r"^b.png has no use$"):
        use_images([Path("b.png")], refuse_b)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("out of memory"), OSError(28, "disk full")])
@pytest.mark.parametrize("names", [["b.png"], ["a.jpg", "b.png"]], ids=["one", "two"])
def test_other_errors_end_the_loop(names: list[str], error: Exception, folder: Path) -> None:
    use = Mock(side_effect=error)
    with pytest.raises(type(error)) as raised:
        use_images([Path(name) for name in names], use)
    assert raised.value is error
    use.assert_called_once()
