"""The paper's own figures: Tables 5 and 6 of "Non-local Neural Networks", on COCO val2017. None is ours."""

from functools import cache

from nl_detectron import model_zoo

from .names import blocks_of
from .pairing import config_setting
from .runs import Run

# By the shipped config of the row. Its 3x config is another schedule of the same row.
TABLE_5 = {
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml": (38.0, 59.6, 41.0, 34.6, 56.4, 36.5),
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_nl_1x.yaml": (39.0, 61.1, 41.9, 35.5, 58.0, 37.4),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_1x.yaml": (39.5, 61.4, 42.9, 36.0, 58.1, 38.3),
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_nl_1x.yaml": (40.8, 63.1, 44.5, 37.1, 59.9, 39.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_1x.yaml": (44.1, 66.4, 48.4, 39.7, 63.2, 42.2),
    "COCO-InstanceSegmentation/mask_rcnn_X_152_32x8d_FPN_nl_1x.yaml": (45.0, 67.8, 48.9, 40.3, 64.4, 42.8),
}
TABLE_6 = {
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_1x.yaml": (65.1, 86.8, 70.4),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_1x.yaml": (66.0, 87.1, 71.7),
    "COCO-Keypoints/keypoint_rcnn_R_101_FPN_nl_head_backbone_1x.yaml": (66.5, 87.3, 72.8),
}
_SCORES_5 = ("bbox/AP", "bbox/AP50", "bbox/AP75", "segm/AP", "segm/AP50", "segm/AP75")
_SCORES_6 = ("keypoints/AP", "keypoints/AP50", "keypoints/AP75")
COCO_2017_IMAGES = (5000, 118287)  # val and train, also those for keypoints; a subset may have their names


def scores_of(config: str) -> dict[str, float]:
    """The paper's figures by their names in Detectron2, for a shipped config."""
    if config in TABLE_5:
        return dict(zip(_SCORES_5, TABLE_5[config], strict=True))
    return dict(zip(_SCORES_6, TABLE_6[config], strict=True))


def row_of(run: Run) -> str | None:
    """The shipped config of the paper's row that a run is: of its model, its blocks and all of COCO 2017."""
    if run.images != COCO_2017_IMAGES:
        return None
    ours = blocks_of(run.cfg), _row_keys(config_setting(run.cfg))
    return next((config for config in TABLE_5 | TABLE_6 if _row(config) == ours), None)


@cache
def _row(config: str) -> tuple[str, dict[str, str]]:
    cfg = model_zoo.get_config(config)
    return blocks_of(cfg), _row_keys(config_setting(cfg))


def _row_keys(setting: dict[str, str]) -> dict[str, str]:
    of_no_row = ("MODEL.WEIGHTS", "MODEL.DEVICE")  # where the file lies, and what computes
    sections = ("MODEL.", "DATASETS.", "INPUT.")
    return {key: value for key, value in setting.items() if key.startswith(sections) and key not in of_no_row}
