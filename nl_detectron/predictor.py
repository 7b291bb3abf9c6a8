"""A trained model for single images: Detectron2's DefaultPredictor, with weights that are checked."""

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.data.transforms import ResizeShortestEdge, ResizeTransform, Transform
from detectron2.engine import DefaultPredictor
from torch import nn

from .checkpoint import Checkpointer, check_weights_file
from .errors import UserError, reported_as_user_errors
from .load_report import LoadReport

__all__ = ["Predictor", "load_weights"]


class Predictor(DefaultPredictor):
    """Detectron2's, which takes a BGR image and gives the output of the model for it.

    It raises a UserError for an image so long and thin that nothing is left of its shorter side.

    Attributes:
        metadata: that of the first test set, if any. Classes, stuff and keypoints have their numbers for
            names where it has another count of them than the model.
        report: what became of the tensors when MODEL.WEIGHTS was loaded.
    """

    def __init__(self, cfg: CfgNode, allow_mismatch: bool = False) -> None:
        """
        Args:
            allow_mismatch: as `load_weights` takes it.

        Raises:
            UserError: if the model cannot be built, or MODEL.WEIGHTS not be loaded.
        """
        unloaded = cfg.clone()
        unloaded.defrost()
        unloaded.MODEL.WEIGHTS = ""  # which Detectron2 would load as far as they fit
        with reported_as_user_errors("Detectron2 cannot build this model"):
            super().__init__(unloaded)
        self.cfg.MODEL.WEIGHTS = cfg.MODEL.WEIGHTS
        self.aug = _Resize([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)
        self.metadata = _complete_metadata(cfg)
        self.report = load_weights(self.model, cfg.MODEL.WEIGHTS, allow_mismatch)


class _Resize(ResizeShortestEdge):
    """Detectron2's, which resizes an image of 1 x 3000 pixels to 0 x 1333, and fails."""

    def get_transform(self, image: np.ndarray) -> Transform:
        transform = super().get_transform(image)
        if isinstance(transform, ResizeTransform) and not (transform.new_h and transform.new_w):
            height, width = image.shape[:2]
            raise UserError(
                f"an image must not be so long and thin; got {width} x {height} pixels, of which "
                f"{transform.new_w} x {transform.new_h} would be left. Crop it, or raise INPUT.MAX_SIZE_TEST."
            )
        return transform


class _QuietCheckpointer(Checkpointer):
    """One whose report is for the caller to show, and not in the log too."""

    def _log_incompatible_keys(self, incompatible: object) -> None:
        pass


def load_weights(model: nn.Module, weights: str, allow_mismatch: bool = False) -> LoadReport:
    """Load MODEL.WEIGHTS into a model, for inference; what is returned says how, and nothing is logged.

    Args:
        allow_mismatch: whether the model may have tensors that the checkpoint does not hold. Whole blocks
            always may, if it holds none: it is the baseline's then.

    Raises:
        UserError: if there are no weights, they cannot be loaded, or not without `allow_mismatch`.
    """
    if not weights:
        raise UserError("MODEL.WEIGHTS must be a checkpoint of this model; got none.")
    check_weights_file(weights)
    checkpointer = _QuietCheckpointer(model)
    with reported_as_user_errors(f"MODEL.WEIGHTS {weights!r} cannot be loaded"):
        checkpointer.load(weights)
    if not allow_mismatch:
        checkpointer.report.check_whole()
    return checkpointer.report


def _complete_metadata(cfg: CfgNode) -> Metadata:
    """Metadata that Detectron2's visualizers can draw all outputs of the model with: they look every class up
    in it, and some fail where there is none.
    """
    node = cfg.MODEL.RETINANET if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else cfg.MODEL.ROI_HEADS
    counts = {
        "thing_classes": node.NUM_CLASSES,
        "stuff_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
        "keypoint_names": cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS,
    }
    known = MetadataCatalog.get(cfg.DATASETS.TEST[0]).as_dict() if cfg.DATASETS.TEST else {}
    names = {field: known.get(field) or () for field in counts}
    numbers = {
        field: [str(k) for k in range(count)] for field, count in counts.items() if len(names[field]) != count
    }
    return Metadata(**known | numbers)
