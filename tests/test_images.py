"""Which images a command line means, how they are read, and where results go."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from nl_detectron.errors import UserError
from nl_detectron.images import find_images, output_paths, read_image, use_images, write_image

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
    ],
)
def test_find_images(inputs: list[str], names: str, folder: Path) -> None:
    assert [str(path) for path in find_images(inputs)] == names.split()


@pytest.mark.parametrize("name", ["~", "~/?.*"])
def test_the_home_of_the_user(name: str, folder: Path) -> None:
    assert folder / "a.jpg" in find_images([name])


def test_an_image_is_known_by_its_content_or_its_suffix(folder: Path) -> None:
    (folder / "a.jpg").rename(folder / "photo")
    (folder / "empty.jpg").touch()  # is reported when it is read
    assert find_images(["photo", "empty.jpg"]) == [Path("photo"), Path("empty.jpg")]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([""], "--input must be images, folders or patterns; got ''. Is a shell's variable unset?"),
        ([], "--input must name images, folders or patterns; got none."),
        (["no.jpg"], "--input must be images, folders or patterns; there is no 'no.jpg'."),
        (["b.png", "notes.txt"], "--input must be images; 'notes.txt' is not in a format that Pillow reads."),
        (["sub.png"], "--input must have images in it; there are none in 'sub.png'."),
        (["*.bmp"], "--input must have images in it; there are none in '*.bmp'."),
        (["*.txt"], "--input must have images in it; there are none in '*.txt'."),
    ],
)
def test_what_is_no_image(inputs: list[str], message: str, folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        find_images(inputs)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("mode", "colour", "bgr"),
    [
        ("RGB", (250, 100, 5), (5, 100, 250)),
        ("RGBA", (250, 100, 5, 128), (5, 100, 250)),
        ("L", 70, (70, 70, 70)),
        ("LA", (70, 0), (70, 70, 70)),
        ("1", 1, (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (0, 0, 255)),
    ],
)
def test_modes(mode: str, colour: object, bgr: tuple[int, int, int], tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    Image.new(mode, (5, 3), colour).save(path)
    image = read_image(path)
    assert image.shape == (3, 5, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert (image == bgr).all()


def test_a_palette(tmp_path: Path) -> None:
    Image.new("RGB", (5, 3), (204, 0, 0)).convert("P").save(tmp_path / "image.png")
    assert (read_image(tmp_path / "image.png") == (0, 0, 204)).all()


def test_it_is_upright(tmp_path: Path) -> None:
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
    """Which Pillow would make white, all of it."""
    path = tmp_path / "image.tif"
    Image.fromarray(np.full((3, 5), 1000, dtype)).save(path)
    with pytest.raises(UserError) as refused:
        read_image(path)
    expected = f"'{path}' must have 8 bits a channel; got Pillow's mode {mode!r}. Convert it."
    assert str(refused.value) == expected


def test_broken_images_are_named(tmp_path: Path, photo: np.ndarray) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(cv2.imencode(".jpg", photo)[1].tobytes()[:-400])
    with pytest.raises(UserError, match="image.jpg' cannot be read: OSError: image file is truncated"):
        read_image(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="image.jpg' cannot be read: UnidentifiedImageError: "):
        read_image(path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="image.jpg"):
        read_image(path)


def test_a_reason_without_words(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("nl_detectron.images.detection_utils.read_image", fail)
    with pytest.raises(UserError, match="^'b.png' cannot be read: AssertionError$"):
        read_image(Path("b.png"))


def test_an_image_is_written_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    write_image(tmp_path / "image.png", image)
    assert (np.asarray(Image.open(tmp_path / "image.png"))[:, :, ::-1] == image).all()

    def fill_disk(self: Path, data: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(OSError, match="No space left"):
        write_image(tmp_path / "image.png", image + 1)
    assert [path.name for path in tmp_path.iterdir()] == ["image.png"]
    assert (np.asarray(Image.open(tmp_path / "image.png"))[:, :, ::-1] == image).all()


@pytest.mark.parametrize(
    ("images", "output", "paths"),
    [
        (["b.png"], "new/result.JPG", ["new/result.JPG"]),
        (["b.png"], "new", ["new/b.png"]),
        (["b.png"], "sub.png", ["sub.png/b.png"]),
        (["a.jpg", "b.png"], "new/er", ["new/er/a.jpg", "new/er/b.png"]),
    ],
)
def test_output_paths(images: list[str], output: str, paths: list[str], folder: Path) -> None:
    found = output_paths([Path(image) for image in images], Path(output))
    assert found == {Path(image): Path(path) for image, path in zip(images, paths, strict=True)}
    assert Path(paths[0]).parent.is_dir()


@pytest.mark.parametrize(
    ("images", "output", "message"),
    [
        (["b.png"], "../{folder}/b.png", "--output must be another place than --input; '../{folder}/b.png' "),
        (
            ["a.jpg", "b.png"],
            ".",
            "--output must be another place than --input; 'a.jpg' would be overwritten.",
        ),
        (["a.jpg", "b.png"], "new.jpg", "--output must be a folder; got 'new.jpg'."),
        (["b.png"], "notes.txt", "--output must be a folder or an image, like result.jpg; got 'notes.txt'."),
        (["b.png"], "new.xyz", "--output must be a folder or an image, like result.jpg; got 'new.xyz'."),
        (["b.png"], "new.pgm", "--output must be a folder or an image, like result.jpg; got 'new.pgm'."),
        (["b.png"], ".jpg", "--output must be a folder or an image, like result.jpg; got '.jpg'."),
        (["a.pgm", "b.png"], "new", "--output must have a suffix like .jpg or .png; got 'new/a.pgm'."),
        (["photo"], "new", "--output must have a suffix like .jpg or .png; got 'new/photo'."),
        (
            ["b.png", "sub.png/b.png"],
            "new",
            "--input must have each file name once; 'b.png' and 'sub.png/b.png' would be 'new/b.png'.",
        ),
    ],
)
def test_where_nothing_can_be_written(images: list[str], output: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        output_paths([Path(image) for image in images], Path(output.format(folder=folder.name)))
    assert str(refused.value).startswith(message.format(folder=folder.name))
    assert not (folder / "new").exists()


def test_an_image_is_not_overwritten_through_a_link(folder: Path) -> None:
    (folder / "link.png").symlink_to("b.png")
    with pytest.raises(UserError, match="'b.png' would be overwritten"):
        output_paths([Path("link.png")], Path("b.png"))


def test_a_link_that_goes_in_a_circle(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    with pytest.raises(FileExistsError, match="'circle'"):
        output_paths([Path("b.png")], Path("circle"))
    assert output_paths([Path("b.png")], Path("circle.jpg"))  # is replaced


ODD_NAMES = [os.fsdecode(b"bad\xff.png"), os.fsdecode(b"bad.\xff"), "two\nlines.png"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=["not UTF-8", "nor the suffix", "two lines"])
def test_odd_names(name: str, folder: Path) -> None:
    """With those that are not UTF-8, OpenCV ends the process. Messages are of one line."""
    (folder / "b.png").rename(name)
    image = read_image(find_images([name])[0])
    if name.endswith(".png"):
        write_image(output_paths([Path(name)], Path("new"))[Path(name)], image)
        assert (read_image(Path("new", name)) == image).all()
    else:
        with pytest.raises(UserError, match=r"a suffix like \.jpg or \.png; got 'new/bad\.\\udcff'"):
            output_paths([Path(name)], Path("new"))
    Path(name).write_bytes(b"")
    with pytest.raises(UserError, match=r"^'.*' cannot be read: .*$") as refused:
        read_image(Path(name))
    assert "\n" not in str(refused.value)


def test_an_image_that_its_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image.webp' cannot be written: 20000 x 1 pixels"):
        write_image(tmp_path / "image.webp", np.zeros((1, 20000, 3), np.uint8))
    assert not [*tmp_path.iterdir()]


def refuse_b(path: Path, _: np.ndarray) -> None:
    if path.name == "b.png":
        raise UserError("a point must lie in it")


def test_images_that_are_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is gone, it is broken, it is of no use. The others are used."""
    (folder / "broken.png").touch()
    used = []

    def use(path: Path, pixels: np.ndarray) -> None:
        refuse_b(path, pixels)
        used.append(path.name)

    with pytest.raises(UserError, match="^--input must be usable; 3 of 4 are left out, see above.$"):
        use_images([Path(name) for name in ("gone.png", "broken.png", "b.png", "a.jpg")], use)
    assert used == ["a.jpg"]
    first, second, third = capsys.readouterr().err.splitlines()
    assert first == "left out: 'gone.png': [Errno 2] No such file or directory: 'gone.png'"
    assert second.startswith("left out: 'broken.png': cannot be read: UnidentifiedImageError: ")
    assert third == "left out: 'b.png': a point must lie in it"


def test_an_image_alone_has_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="^a point must lie in it$"):
        use_images([Path("b.png")], refuse_b)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("out of memory"), OSError(28, "disk full")])
@pytest.mark.parametrize("names", [["b.png"], ["a.jpg", "b.png"]], ids=["one", "two"])
def test_what_is_not_the_images_fault_ends_it(names: list[str], error: Exception, folder: Path) -> None:
    used = []

    def use(path: Path, _: np.ndarray) -> None:
        used.append(path)
        raise error

    with pytest.raises(type(error)) as raised:
        use_images([Path(name) for name in names], use)
    assert raised.value is error
    assert len(used) == 1
