"""Detectron2's DefaultTrainer with COCO evaluation, test-time augmentation and a summary of the blocks."""

import logging
from collections import OrderedDict
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import GeneralizedRCNNWithTTA
from detectron2.utils import comm
from torch import nn

from nl_detectron.checkpoint import Checkpointer
from nl_detectron.compat import complete_checkpoints
from nl_detectron.errors import reported_as_user_errors
from nl_detectron.modeling import summarize_non_local

from .forecast import report_forecast
from .preflight import check_metrics

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains and evaluates a config on data sets in COCO's format."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        report_forecast(self.cfg, self.model, training=True)  # to which REFERENCE_WORLD_SIZE is applied
        complete_checkpoints(self)

    def build_hooks(self) -> list[hooks.HookBase]:
        """Detectron2's hooks, with test-time augmentation at the end where TEST.AUG asks for it."""
        self.checkpointer = Checkpointer.in_place_of(self.checkpointer)  # before a hook takes it
        trainer_hooks = super().build_hooks()
        if self.cfg.TEST.AUG.ENABLED:
            hook = hooks.EvalHook(0, lambda: self.test_with_tta(self.cfg, self.model))
            # After the evaluation, and before the writers, which only the main process has.
            trainer_hooks.insert(len(trainer_hooks) - comm.is_main_process(), hook)
        return trainer_hooks

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with reported_as_user_errors("Detectron2 cannot build this model"):
            model = super().build_model(cfg)
        logger.info("This model has %s", summarize_non_local(model))
        return model

    @classmethod
    def build_evaluator(
        cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None
    ) -> COCOEvaluator:
        """Box AP, and mask and keypoint AP where both the model and the data set have them.

        Raises:
            UserError: if the data set is not to be evaluated as COCO is.
        """
        check_metrics(dataset_name)
        sigmas = MetadataCatalog.get(dataset_name).get("keypoint_oks_sigmas", ())
        return COCOEvaluator(
            dataset_name,
            tasks=evaluation_tasks(cfg, dataset_name),
            output_dir=output_folder or str(Path(cfg.OUTPUT_DIR) / "inference"),
            kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS or sigmas,
        )

    @classmethod
    def test_with_tta(cls, cfg: CfgNode, model: nn.Module) -> OrderedDict:
        """Test with test-time augmentation; the results are called bbox_TTA and segm_TTA."""
        logger.info("Running inference with test-time augmentation ...")
        folder = str(Path(cfg.OUTPUT_DIR) / "inference_TTA")
        evaluators = [cls.build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
        results = cls.test(cfg, GeneralizedRCNNWithTTA(cfg, model), evaluators)
        return OrderedDict((f"{task}_TTA", metrics) for task, metrics in results.items())


def evaluation_tasks(cfg: CfgNode, dataset_name: str) -> tuple[str, ...]:
    """What COCOEvaluator is to report, of "bbox", "segm" and "keypoints".

    Given explicitly, because Detectron2 takes it from the predictions: with no detection at all it would
    report no mask and keypoint AP, and with detections also those that the data set has no truth for.
    """
    images = DatasetCatalog.get(dataset_name)
    has = {key for image in images for object_ in image.get("annotations", ()) for key in object_}
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON and "segmentation" in has:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON and "keypoints" in has:
        tasks.append("keypoints")
    return tuple(tasks)
