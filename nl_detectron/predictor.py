"""A trained model for single images: Detectron2's DefaultPredictor, with weights that are checked."""

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.engine import DefaultPredictor

from .checkpoint import load_weights

__all__ = ["Predictor"]


class Predictor(DefaultPredictor):
    """Detectron2's, which takes a BGR image and returns the output of the model for it.

    Attributes:
        metadata: that of the first test set. Numbers replace its names where their count is not the model's.
        report: the load report of MODEL.WEIGHTS.
    """

    def __init__(self, cfg: CfgNode, allow_mismatch: bool = False) -> None:
        """MODEL.WEIGHTS are loaded, or refused, as by `load_weights`."""
        unloaded = cfg.clone()
        unloaded.defrost()
        unloaded.MODEL.WEIGHTS = ""  # Detectron2 would load what fits
        super().__init__(unloaded)
        self.cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS
        self.metadata = _complete_metadata(cfg)
        self.report = load_weights(self.model, cfg.MODEL.WEIGHTS, allow_mismatch)


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
