"""The images that a command line names, and how they are read."""

import glob
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from detectron2.data import detection_utils
from PIL import Image
from torchvision.datasets.folder import is_image_file
from tqdm import tqdm

from nl_detectron.data.coco_images import read_header
from nl_detectron.errors import UserError

T = TypeVar("T")


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Images by the names of files, folders (all images in them) and patterns; a UserError for none."""
    if not inputs or "" in inputs:  # Path would make the current folder of ""
        raise UserError("--input is empty. Is a shell variable unset?")
    found: list[Path] = []
    for name in inputs:
        path = Path(name).expanduser()
        pattern = f"{glob.escape(str(path))}/*" if path.is_dir() else str(path)
        images = [path] if path.is_file() else map(Path, sorted(glob.glob(pattern)))
        images = [
            image for image in images if image == path or (is_image_file(str(image)) and image.is_file())
        ]
        if not images:
            raise UserError(f"--input {name!r} names no image.")
        found += images
    return list(dict.fromkeys(found))


def read_image(path: Path) -> np.ndarray:
    """An image (H, W, 3) uint8, BGR, upright as its EXIF says, whatever its mode; or a UserError."""
    try:
        with Image.open(path) as image:
            mode = image.mode
        if mode not in ("I", "F") and not mode.startswith("I;"):
            return np.ascontiguousarray(detection_utils.read_image(str(path), format="BGR"))
    except Exception as error:  # Pillow's decoders raise errors of many types
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"{str(path)!r} cannot be read: {reason or type(error).__name__}") from error
    # Pillow would clip it to 255, and so make it white
    raise UserError(f"{str(path)!r} has more than 8 bits a channel (Pillow's mode {mode!r}). Convert it.")


def in_format(image: np.ndarray, input_format: str) -> np.ndarray:
    """An image (H, W, 3), BGR, as a model with this INPUT.FORMAT sees it: (H, W, 1) for "L"."""
    rgb = Image.fromarray(np.ascontiguousarray(image[:, :, ::-1]))
    return detection_utils.convert_PIL_to_numpy(rgb, input_format)


def sort_by_size(images: Iterable[Path]) -> list[Path]:
    """Images in an order in which those of one size follow each other, by their headers."""
    return sorted(images, key=lambda path: read_header(str(path))[1:3])  # `read_image` says why there is none


def read_images(images: Iterable[Path]) -> Iterator[np.ndarray | UserError]:
    """Each image, or why it cannot be read."""
    for path in images:
        try:
            yield read_image(path)
        except UserError as error:
            yield error


def use_images(
    images: Sequence[Path],
    use: Callable[[Path, T], None],
    read: Callable[[Sequence[Path]], Iterable[T | UserError]] = read_images,
) -> None:
    """Read each image and do something with it; one for which that raises a UserError is named and skipped.

    Args:
        read: what `use` gets of each image, in their order: its pixels by default.

    Raises:
        UserError: for the only image, or after the last one, if some were skipped.
    """
    skipped = 0
    # A bar in a terminal only: a log has no use for it.
    bar = tqdm(read(images), unit="image", total=len(images), disable=None)
    for path, item in zip(images, bar, strict=True):
        try:
            if isinstance(item, UserError):
                raise item
            use(path, item)
        except UserError as error:
            if len(images) == 1:
                raise
            skipped += 1
            tqdm.write(f"skipped: {error}", file=sys.stderr)
    if skipped:
        raise UserError(f"Skipped {skipped} of {len(images)} images (see above).")
