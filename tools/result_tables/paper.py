"""The paper's own figures: Tables 5 and 6 of "Non-local Neural Networks", on COCO val2017. None is ours."""

from functools import cache

from detectron2.config import CfgNode

from nl_detectron import model_zoo
from nl_detectron.engine import Run

from .pairing import blocks_of, config_setting

# By the shipped config of the row; a 3x config is another schedule of the same row.
# Box AP, AP50, AP75, mask AP, AP50, AP75
TABLE_5 = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": (38.0, 59.6, 41.0, 34.6, 56.4, 36.5),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml": (39.0, 61.1, 41.9, 35.5, 58.0, 37.4),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml": (39.5, 61.4, 42.9, 36.0, 58.1, 38.3),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_nl_1x.yaml": (40.8, 63.1, 44.5, 37.1, 59.9, 39.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_1x.yaml": (44.1, 66.4, 48.4, 39.7, 63.2, 42.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_1x.yaml": (45.0, 67.8, 48.9, 40.3, 64.4, 42.8),
}
# Keypoint AP, AP50, AP75
TABLE_6 = {
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml": (65.1, 86.8, 70.4),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_1x.yaml": (66.0, 87.1, 71.7),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml": (66.5, 87.3, 72.8),
}
_COCO_2017 = [118287, 5000]  # images of train2017 and val2017; a subset may have their names


def scores_in_paper(config: str | None) -> dict[str, float]:
    """The figures of a row by metric, in per cent; none for None."""
    tasks = ("keypoints",) if config in TABLE_6 else ("bbox", "segm")
    metrics = [f"{task}/{ap}" for task in tasks for ap in ("AP", "AP50", "AP75")]
    return dict(zip(metrics, (TABLE_5 | TABLE_6)[config], strict=True)) if config else {}


def row_in_paper(run: Run) -> str | None:
    """The shipped config of the row that a run is: its model, its blocks, and all of COCO 2017."""
    data = (*run.cfg.DATASETS.TRAIN, *run.cfg.DATASETS.TEST)
    if [run.images.get(name) for name in data] != _COCO_2017:
        return None
    return next((config for config in TABLE_5 | TABLE_6 if _shipped_row(config) == _row(run.cfg)), None)


@cache
def _shipped_row(config: str) -> tuple[str, dict[str, str]]:
    return _row(model_zoo.get_config(config))


def _row(cfg: CfgNode) -> tuple[str, dict[str, str]]:
    """The blocks and the keys that make a row: not the schedule, the device and the file of weights."""
    sections, others = ("MODEL.", "DATASETS.", "INPUT."), ("MODEL.WEIGHTS", "MODEL.DEVICE")
    keys = {key: value for key, value in config_setting(cfg).items() if key.startswith(sections)}
    return blocks_of(cfg), {key: value for key, value in keys.items() if key not in others}
