"""A trained model for single images: Detectron2's DefaultPredictor, with weights that are checked."""

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import DefaultPredictor

from .checkpoint import load_weights
from .engine.precision import use_precision
from .inspect import in_format

__all__ = ["Predictor"]


class Predictor(DefaultPredictor):
    """Detectron2's, which takes a BGR image and returns the output of the model for it.

    The model computes in SOLVER.AMP.PRECISION, as in an evaluation.

    Attributes:
        metadata: that of the first test set. Numbers replace its names where their count is not the model's.
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
        self.metadata = _complete_metadata(cfg)
        self.report = load_weights(self.model, cfg.MODEL.WEIGHTS, allow_mismatch)
        use_precision(cfg, self.model)

    def __call__(self, original_image: np.ndarray) -> dict[str, object]:
        """The output of the model for an image (H, W, 3) of uint8, BGR."""
        if self.cfg.INPUT.FORMAT not in ("BGR", "RGB"):
            original_image = in_format(original_image, self.cfg.INPUT.FORMAT)
        return super().__call__(original_image)


def _complete_metadata(cfg: CfgNode) -> Metadata:
    """Metadata with a name for every class, which Detectron2's visualizers need."""
    node = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    counts = {
        "thing_classes": node.NUM_CLASSES,
        "stuff_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        "keypoint_names": cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS,
    }
    metadata = MetadataCatalog.get(cfg.DATASETS.TEST[0]).as_dict() if cfg.DATASETS.TEST else {}
    for field, count in counts.items():
        if len(metadata.get(field) or ()) != count:
            metadata = metadata | {field: [str(k) for k in range(count)]}
    return Metadata(**metadata)
