"""What a model gives for an image, drawn with Detectron2's visualizers."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from detectron2.data import Metadata
from detectron2.utils.video_visualizer import VideoVisualizer
from detectron2.utils.visualizer import Visualizer

from .errors import UserError
from .predictor import Predictor

SIDES = range(3, 2**16)  # in pixels: Detectron2 draws no masks of 2 x H, and Matplotlib no larger pictures


def draw(image: np.ndarray, output: Mapping[str, object], metadata: Metadata) -> np.ndarray:
    """Draw into a copy of an image.

    Args:
        image: (H, W, 3) uint8, BGR.
        output: of a Detectron2 model for this image, on any device.
        metadata: names of the classes and colours, as `Predictor.metadata`.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        UserError: for an image that is too small or too large.
    """
    height, width = image.shape[:2]
    if height not in SIDES or width not in SIDES:
        rule = f"images of {SIDES[0]} to {SIDES[-1]} pixels a side"
        raise UserError(f"--input must be {rule}; got {width} x {height}.")
    visualizer = Visualizer(image[:, :, ::-1], metadata)
    for method, arguments in _layers(output):
        getattr(visualizer, method)(*arguments)
    return visualizer.output.get_image()[:, :, ::-1]


def draw_frames(predictor: Predictor, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Draw what is detected in the frames of a video, one at a time, objects that stay in the same colours.

    Args:
        frames: (H, W, 3) uint8, BGR, as those that come out.
    """
    visualizer = VideoVisualizer(predictor.metadata)
    for frame in frames:
        picture = frame[:, :, ::-1]
        for method, arguments in _layers(predictor(frame)):
            picture = getattr(visualizer, method)(picture, *arguments).get_image()
        yield np.ascontiguousarray(picture[:, :, ::-1])


def _layers(output: Mapping[str, object]) -> Iterator[tuple[str, tuple[object, ...]]]:
    """The method of both visualizers for each part of an output, and what it takes, on the CPU."""
    if "panoptic_seg" in output:  # which has the other two in it
        segmentation, segments = output["panoptic_seg"]
        yield "draw_panoptic_seg_predictions", (segmentation.cpu(), segments)
        return
    if "sem_seg" in output:
        yield "draw_sem_seg", (output["sem_seg"].argmax(dim=0).cpu(),)
    if "instances" in output:
        yield "draw_instance_predictions", (output["instances"].to("cpu"),)
