"""Pictures of what is detected in images."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write
from nl_detectron.inspect import LabelVisualizer

# Into which OpenCV writes colours; .pgm is grey.
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


def output_paths(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """Where the result of each image goes: to `output` if that has the suffix of an image, else into it, a
    folder, under the image's own name.

    Raises:
        UserError: if an image would be overwritten, two results have the same name, or OpenCV cannot write
            images of a suffix.
    """
    is_file = output.suffix.lower() in IMAGES and not output.is_dir()
    if is_file and len(images) > 1:
        raise UserError(f"--output {str(output)!r} is one file for {len(images)} images. Give a folder.")
    paths = {image: output if is_file else output / image.name for image in images}
    originals = {os.path.realpath(image) for image in images}
    sources: dict[Path, Path] = {}
    for image, path in paths.items():
        other = sources.setdefault(path, image)
        if other != image:
            raise UserError(f"{str(other)!r} and {str(image)!r} would both be {str(path)!r}. Rename one.")
        if os.path.realpath(path) in originals:
            raise UserError(f"{str(path)!r} would be overwritten. Give another --output.")
        if path.suffix.lower() not in IMAGES:
            raise UserError(f"{str(path)!r} cannot be written. Give an --output with a suffix like .jpg.")
    return paths


def write_picture(
    path: Path,
    image: Path,
    pixels: np.ndarray,
    output: Mapping[str, object],
    metadata: Metadata,
    scale: float | None = None,
) -> None:
    """Draw what is detected in an image into a file, `scale` times as large; None: as `picture_scale` says.

    Raises:
        UserError: if the image is too small to be drawn on, or too large for the format.
    """
    if min(pixels.shape[:2]) * min(scale or 1, 1) < 3:
        raise UserError(f"{str(image)!r} has a side below 3 pixels, for which Detectron2 draws no masks.")
    picture = draw(pixels, output, metadata, scale)
    is_encoded, data = cv2.imencode(path.suffix, picture)  # imwrite wants UTF-8 names
    if not is_encoded:
        raise UserError(f"{str(path)!r} cannot hold an image of this size. Give another format.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as unfinished:
        unfinished.write_bytes(data)


def draw(
    image: np.ndarray, output: Mapping[str, object], metadata: Metadata, scale: float | None = None
) -> np.ndarray:
    """Draw the output of a Detectron2 model into a scaled copy of its image (H, W, 3) uint8, BGR."""
    visualizer = LabelVisualizer(image[:, :, ::-1], metadata, scale)
    if "panoptic_seg" in output:  # it holds the other two
        segmentation, segments = output["panoptic_seg"]
        visualizer.draw_panoptic_seg_predictions(segmentation.cpu(), segments)
    else:
        if "sem_seg" in output:
            visualizer.draw_sem_seg(output["sem_seg"].argmax(dim=0).cpu())
        if "instances" in output:
            visualizer.draw_instance_predictions(output["instances"].to("cpu"))
    return visualizer.output.get_image()[:, :, ::-1]
