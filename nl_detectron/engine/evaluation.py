"""COCO's evaluation of a data set: box, mask and keypoint AP."""

import contextlib
import io
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.testing import flatten_results_dict

from nl_detectron.compat import use_compiled_coco_eval

logger = logging.getLogger(__name__)


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> COCOEvaluator:
    """Box AP, and mask and keypoint AP where both the model and the data set have them."""
    folder = Path(output_folder or Path(cfg.OUTPUT_DIR) / "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder /= dataset_name  # or each set would replace the file of the one before
    sigmas = MetadataCatalog.get(dataset_name).get("keypoint_oks_sigmas", ())
    use_compiled_coco_eval()
    evaluator = COCOEvaluator(
        dataset_name,
        tasks=evaluation_tasks(cfg, dataset_name),
        output_dir=str(folder),
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS or sigmas,
    )
    evaluator.evaluate = partial(_print_to_log, evaluator.evaluate)
    return evaluator


def metrics_of(cfg: CfgNode, dataset_name: str) -> list[str]:
    """The keys of what is evaluated: bbox/AP and so on, and bbox/AP-CLASS if there are several classes."""
    metadata = MetadataCatalog.get(dataset_name)
    classes = metadata.thing_classes if len(metadata.get("thing_classes", ())) > 1 else ()
    found = []
    for task in evaluation_tasks(cfg, dataset_name):
        small = () if task == "keypoints" else ("APs",)  # COCO has no keypoints of small objects
        figures = ["AP", "AP50", "AP75", *small, "APm", "APl"]
        found += [f"{task}/{name}" for name in (*figures, *(f"AP-{name}" for name in classes))]
    return found


def summarize(results: Mapping[str, object]) -> str:
    """A line with the AP of each task, of an evaluation's results."""
    metrics = flatten_results_dict(results)
    parts = []
    for name in [key.removesuffix("AP") for key in metrics if key.endswith("/AP")]:
        more = [
            f"{figure} {metrics[name + figure]:.1f}"
            for figure in ("AP50", "AP75")
            if name + figure in metrics
        ]
        parts.append(f"{name}AP {metrics[name + 'AP']:.1f}" + (f" ({', '.join(more)})" if more else ""))
    return "; ".join(parts)


def _print_to_log(evaluate: Callable[..., OrderedDict], *args: object, **kwargs: object) -> OrderedDict:
    """COCO's evaluation prints what Detectron2 logs, too."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        results = evaluate(*args, **kwargs)
    logger.debug("%s", printed.getvalue())
    return results


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
