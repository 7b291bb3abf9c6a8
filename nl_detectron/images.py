"""The images of a command line: which there are, how they are read, and under which names results go."""

import glob
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import detection_utils
from PIL import Image
from torchvision.datasets.folder import is_image_file
from tqdm import tqdm

from .errors import UserError, reported_as_user_errors
from .files import written_whole


def find_images(inputs: Sequence[str]) -> list[Path]:
    """The images that are meant by names of files and folders (all images in it), and by patterns.

    Those of a folder or a pattern are sorted, and known by their suffix. "~" is the user's home.

    Raises:
        UserError: for a name that means no image.
    """
    if not inputs:
        raise UserError("--input must name images, folders or patterns; got none.")
    return list(dict.fromkeys(path for name in inputs for path in _meant_by(name)))


def _meant_by(name: str) -> list[Path]:
    if not name:  # of which Path makes the current folder
        raise UserError("--input must be images, folders or patterns; got ''. Is a shell's variable unset?")
    path = Path(name).expanduser()
    if path.is_file():
        if not is_image_file(path.name) and not _has_header(path):
            raise UserError(f"--input must be images; {name!r} is not in a format that Pillow reads.")
        return [path]
    if not path.is_dir() and not glob.has_magic(name):
        raise UserError(f"--input must be images, folders or patterns; there is no {name!r}.")
    pattern = glob.escape(str(path)) + "/*" if path.is_dir() else os.path.expanduser(name)
    images = [found for found in sorted(glob.glob(pattern)) if is_image_file(found) and os.path.isfile(found)]
    if not images:
        raise UserError(f"--input must have images in it; there are none in {name!r}.")
    return [Path(image) for image in images]


def _has_header(path: Path) -> bool:
    try:
        Image.open(path).close()
    except Image.UnidentifiedImageError:
        return False
    return True


def read_image(path: Path) -> np.ndarray:
    """An image as Detectron2 reads it, upright as its EXIF says, whatever its mode.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError, OSError: naming the file, for what is wrong with it.
    """
    with reported_as_user_errors(f"{str(path)!r} cannot be read"):
        with Image.open(path) as image:
            mode = image.mode
        if mode in ("I", "F") or mode.startswith("I;"):  # which Pillow clips to 255 and so makes white
            rule = "must have 8 bits a channel"
            raise UserError(f"{str(path)!r} {rule}; got Pillow's mode {mode!r}. Convert it.")
        return np.ascontiguousarray(detection_utils.read_image(str(path), format="BGR"))


def use_images(images: Sequence[Path], use: Callable[[Path, np.ndarray], None]) -> None:
    """Read each image and do something with it. One that cannot be read or used is named and left out.

    Args:
        use: raises a UserError for an image that it has no use for; whatever else it raises ends the loop.

    Raises:
        UserError: for the only image, or after the last one, if some were left out.
    """
    failed = 0
    for path in tqdm(images, unit="image", disable=None):  # a bar in a terminal only: a log has no use for it
        try:
            use(path, _read(path))
        except UserError as error:
            if len(images) == 1:
                raise
            failed += 1
            name = repr(str(path))
            reason = str(error).removeprefix(f"{name} ")
            tqdm.write(f"left out: {name}: {reason}", file=sys.stderr)
    if failed:
        raise UserError(f"--input must be usable; {failed} of {len(images)} are left out, see above.")


def _read(path: Path) -> np.ndarray:
    """As `read_image`; a file that is gone, or may not be read, is a user's mistake too."""
    try:
        return read_image(path)
    except OSError as error:
        raise UserError(str(error)) from error


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image in the format of its suffix; the file is there whole or not at all.

    Raises:
        UserError: if OpenCV cannot write this image in this format.
    """
    is_encoded, data = cv2.imencode(path.suffix, image)
    if not is_encoded:  # as one of more pixels a side than the format can have
        height, width = image.shape[:2]
        raise UserError(
            f"{str(path)!r} cannot be written: {width} x {height} pixels are not for this format."
        )
    with written_whole(path) as unfinished:
        unfinished.write_bytes(data)


def output_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the result of each image goes: `output` itself if it is for one image and has the suffix of one,
    else files of the same names in it, a folder, which is made.

    Raises:
        UserError: if an image would be overwritten, two results have the same name, or OpenCV cannot write
            one under its name; for one image, if `output` has a suffix and is neither an image nor a folder.
    """
    is_one = len(images) == 1
    is_file = not output.is_dir() and (
        output.exists() or is_image_file(output.name) or (is_one and bool(output.suffix))
    )
    if is_file and not (is_one and _is_writable(output)):
        rule = "a folder or an image, like result.jpg" if is_one else "a folder"
        raise UserError(f"--output must be {rule}; got {str(output)!r}.")
    paths = {image: output if is_file else output / image.name for image in images}
    _check_paths(paths)
    next(iter(paths.values())).parent.mkdir(parents=True, exist_ok=True)
    return paths


def _check_paths(paths: dict[Path, Path]) -> None:
    # realpath, as Path.resolve fails at links that go in a circle
    sources, originals = defaultdict(list), {os.path.realpath(image) for image in paths}
    for image, path in paths.items():
        name = repr(str(path))
        sources[name].append(repr(str(image)))
        if os.path.realpath(path) in originals:
            raise UserError(f"--output must be another place than --input; {name} would be overwritten.")
        if not _is_writable(path):
            raise UserError(f"--output must have a suffix like .jpg or .png; got {name}.")
    for name, same in sources.items():
        if len(same) > 1:
            raise UserError(f"--input must have each file name once; {' and '.join(same)} would be {name}.")


def _is_writable(path: Path) -> bool:
    """Whether OpenCV writes images in colour with this suffix; .pgm, for one, is grey.

    It gets nothing but the suffix, as a name that is not UTF-8 ends the process.
    """
    try:
        return path.suffix.isascii() and cv2.imencode(path.suffix, np.zeros((64, 64, 3), np.uint8))[0]
    except cv2.error:
        return False
