"""A trained model for images: Detectron2's DefaultPredictor, with weights that are checked, and batches."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultPredictor

from .checkpoint import load_weights
from .engine.precision import use_precision
from .errors import UserError
from .inspect import in_format
from .names import complete_metadata

__all__ = ["Predictor", "complete_metadata"]


class Predictor(DefaultPredictor):
    """Detectron2's, which takes a BGR image and returns the output of the model for it.

    The model computes in SOLVER.AMP.PRECISION, as in an evaluation.

    Attributes:
        metadata: that of the first test set, with names as `complete_metadata` finds them.
        report: the load report of MODEL.WEIGHTS.
    """

    def __init__(self, cfg: CfgNode, allow_mismatch: bool = False) -> None:
        """MODEL.WEIGHTS are loaded, or refused, as by `load_weights`."""
        unloaded = cfg.clone()
        unloaded.defrost()
        unloaded.MODEL.WEIGHTS = ""  # Detectron2 would load what fits
        if cfg.INPUT.FORMAT != "RGB":
            unloaded.INPUT.FORMAT = "BGR"  # it refuses "L"
        super().__init__(unloaded)
        self.cfg.MODEL.WEIGHTS, self.cfg.INPUT.FORMAT = cfg.MODEL.WEIGHTS, cfg.INPUT.FORMAT
        self.report = load_weights(self.model, cfg.MODEL.WEIGHTS, allow_mismatch)
        self.metadata = complete_metadata(cfg)
        use_precision(cfg, self.model)

    def __call__(self, original_image: np.ndarray) -> dict[str, object]:
        """The output of the model for an image (H, W, 3) of uint8, BGR."""
        return self.batch([original_image])[0]

    def batch(self, images: Sequence[np.ndarray]) -> list[dict[str, object]]:
        """The outputs for images (H, W, 3) of uint8, BGR, in one forward pass.

        Images of one size have the outputs that they have alone, up to rounding. Detectron2 pads those of
        several sizes to one, which changes what is detected.
        """
        with torch.no_grad():
            return self.model([self._prepare(image) for image in images])

    def in_batches(
        self, images: Iterable[np.ndarray | UserError], size: int = 1
    ) -> Iterator[tuple[np.ndarray, dict[str, object]] | UserError]:
        """Each image with its output. Errors keep their places among them.

        Up to `size` images of one (H, W) that follow each other make a batch.
        """
        waiting: list[np.ndarray | UserError] = []
        shapes: list[tuple[int, ...]] = []  # of the images among them
        for image in images:
            shape = [] if isinstance(image, UserError) else [image.shape]
            if len({*shapes, *shape}) > 1:
                yield from self._detect(waiting)
                waiting, shapes = [], []
            waiting.append(image)
            shapes += shape
            if len(shapes) == size:
                yield from self._detect(waiting)
                waiting, shapes = [], []
        yield from self._detect(waiting)

    def _detect(
        self, images: Sequence[np.ndarray | UserError]
    ) -> Iterator[tuple[np.ndarray, dict[str, object]] | UserError]:
        readable = [image for image in images if not isinstance(image, UserError)]
        outputs = iter(self.batch(readable) if readable else ())
        for image in images:
            yield image if isinstance(image, UserError) else (image, next(outputs))

    def _prepare(self, image: np.ndarray) -> dict[str, object]:
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "RGB":
            image = image[:, :, ::-1]
        elif self.cfg.INPUT.FORMAT != "BGR":
            image = in_format(image, self.cfg.INPUT.FORMAT)
        resized = self.aug.get_transform(image).apply_image(image)
        tensor = torch.as_tensor(resized.astype("float32").transpose(2, 0, 1))
        return {"image": tensor, "height": height, "width": width}
