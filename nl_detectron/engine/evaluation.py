"""COCO's evaluation of a data set: box, mask and keypoint AP."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator

from nl_detectron.compat import use_compiled_coco_eval


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> COCOEvaluator:
    """Box AP, and mask and keypoint AP where both the model and the data set have them."""
    folder = Path(output_folder or Path(cfg.OUTPUT_DIR) / "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder /= dataset_name  # or each set would replace the file of the one before
    sigmas = MetadataCatalog.get(dataset_name).get("keypoint_oks_sigmas", ())
    use_compiled_coco_eval()
    return COCOEvaluator(
        dataset_name,
        tasks=evaluation_tasks(cfg, dataset_name),
        output_dir=str(folder),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS or sigmas,
    )


def evaluation_tasks(cfg: CfgNode, dataset_name: str) -> tuple[str, ...]:
    """What COCOEvaluator is to report, of "bbox", "segm" and "keypoints".

    Detectron2 would take it from the predictions: without a detection it would report no mask and keypoint
    AP, and with some also those for which the data set has no truth.
    """
    images = DatasetCatalog.get(dataset_name)
    has = {key for image in images for object_ in image.get("annotations", ()) for key in object_}
    tasks = ["bbox"]
    if cfg.MODEL.MASK_ON and "segmentation" in has:
        tasks.append("segm")
    if cfg.MODEL.KEYPOINT_ON and "keypoints" in has:
        tasks.append("keypoints")
    return tuple(tasks)
