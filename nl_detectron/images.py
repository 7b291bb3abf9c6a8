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
    with reported_as_user_errors(f"{path} cannot be read"):
        with Image.open(path) as image:
            mode = image.mode
        if mode in ("I", "F") or mode.startswith("I;"):  # which Pillow clips to 255 and so makes white
            raise UserError(f"{path} must have 8 bits a channel; got Pillow's mode {mode!r}. Convert it.")
        return np.ascontiguousarray(detection_utils.read_image(str(path), format="BGR"))


def use_images(images: Sequence[Path], use: Callable[[Path, np.ndarray], None]) -> None:
    """Read each image and do something with it, with a progress bar. One that fails is named and left out.

    Raises:
        UserError, OSError: for the only image, or after the last one, if some were left out.
    """
    failed = 0
    for path in tqdm(images, unit="image", disable=len(images) == 1):
        try:
            pixels = read_image(path)
            with reported_as_user_errors(f"{path} cannot be used"):  # as one of 1 x 3000 pixels
                use(path, pixels)
        except (UserError, OSError) as error:
            if len(images) == 1:
                raise
            failed += 1
            tqdm.write(f"left out: {error}", file=sys.stderr)
    if failed:
        raise UserError(f"--input must be whole images; {failed} of {len(images)} are left out, see above.")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write a BGR image in the format of its suffix; the file is there whole or not at all."""
    _, data = cv2.imencode(path.suffix, image)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(data)


def output_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the result of each image goes: `output` itself if it is for one image and has the suffix of one,
    else files of the same names in it, a folder, which is made.

    Raises:
        UserError: if an image would be overwritten, two results have the same name, or one has a suffix
            that OpenCV cannot write.
    """
    is_file = is_image_file(output.name) and not output.is_dir()
    if (output.is_file() and not is_file) or (is_file and len(images) > 1):
        rule = "a folder" if len(images) > 1 else "a folder or an image, like result.jpg"
        raise UserError(f"--output must be {rule}; got {str(output)!r}.")
    paths = {image: output if is_file else output / image.name for image in images}
    _check_paths(paths)
    next(iter(paths.values())).parent.mkdir(parents=True, exist_ok=True)
    return paths


def _check_paths(paths: dict[Path, Path]) -> None:
    sources, originals = defaultdict(list), {image.resolve() for image in paths}
    for image, path in paths.items():
        sources[path].append(str(image))
        if path.resolve() in originals:
            raise UserError(f"--output must be another place than --input; {path} would be overwritten.")
        if not cv2.haveImageWriter(path.name):
            raise UserError(f"--output must have a suffix like .jpg or .png; got {str(path)!r}.")
    for path, same in sources.items():
        if len(same) > 1:
            raise UserError(f"--input must have each file name once; {' and '.join(same)} would be {path}.")
