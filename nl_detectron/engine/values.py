"""What the values of Detectron2's own keys must be.

Detectron2 looks at many of them only after minutes, and takes others, like a threshold above 1, without a
word. A default is left alone, and so is a key that this version of it has not.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import pairwise
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.layers import get_norm
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_BOX_HEAD_REGISTRY,
    ROI_HEADS_REGISTRY,
    ROI_KEYPOINT_HEAD_REGISTRY,
    ROI_MASK_HEAD_REGISTRY,
    box_regression,
)
from detectron2.modeling.proposal_generator import RPN_HEAD_REGISTRY
from fvcore.common.registry import Registry

from nl_detectron.errors import UserError

Test = Callable[[Any], bool]


def _numbers(test: Callable[[float], bool]) -> Test:
    """A test of a number, or of each of several in sequences."""

    def passes(value: object) -> bool:
        if isinstance(value, Sequence) and not isinstance(value, str):
            return all(map(passes, value))
        return isinstance(value, (int, float)) and test(value)

    return passes


def _is_norm(name: str) -> bool:
    try:
        get_norm(name, 32)
    except (KeyError, AttributeError):
        return False
    return True


_RULES: tuple[tuple[str, Test, str], ...] = (
    (
        "not empty",
        len,
        "OUTPUT_DIR INPUT.MIN_SIZE_TRAIN TEST.AUG.MIN_SIZES MODEL.ANCHOR_GENERATOR.SIZES "
        "MODEL.RPN.IN_FEATURES MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS MODEL.RESNETS.OUT_FEATURES "
        "MODEL.ROI_HEADS.IN_FEATURES",
    ),
    (
        "1 or more",
        _numbers(lambda number: number >= 1),
        "INPUT.MAX_SIZE_TRAIN INPUT.MAX_SIZE_TEST SOLVER.MAX_ITER SOLVER.CHECKPOINT_PERIOD TEST.AUG.MAX_SIZE "
        "TEST.PRECISE_BN.NUM_ITER MODEL.FPN.OUT_CHANNELS MODEL.RESNETS.NUM_GROUPS "
        "MODEL.RESNETS.WIDTH_PER_GROUP MODEL.RESNETS.RES2_OUT_CHANNELS MODEL.RESNETS.STEM_OUT_CHANNELS "
        "MODEL.RPN.BATCH_SIZE_PER_IMAGE MODEL.RPN.PRE_NMS_TOPK_TRAIN MODEL.RPN.PRE_NMS_TOPK_TEST "
        "MODEL.RPN.POST_NMS_TOPK_TRAIN MODEL.RPN.POST_NMS_TOPK_TEST MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE "
        "MODEL.ROI_HEADS.NUM_CLASSES MODEL.RETINANET.NUM_CLASSES MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION "
        "MODEL.ROI_BOX_HEAD.FC_DIM MODEL.ROI_BOX_HEAD.CONV_DIM MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION "
        "MODEL.ROI_MASK_HEAD.CONV_DIM MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION "
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
    ),
    (
        "0 or more",
        _numbers(lambda number: 0 <= number < math.inf),
        "INPUT.MIN_SIZE_TRAIN INPUT.MIN_SIZE_TEST DATALOADER.NUM_WORKERS SOLVER.STEPS SOLVER.WARMUP_ITERS "
        "SOLVER.WEIGHT_DECAY SOLVER.WEIGHT_DECAY_NORM TEST.AUG.MIN_SIZES "
        "MODEL.ROI_BOX_HEAD.NUM_FC MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_MASK_HEAD.NUM_CONV",
    ),
    (
        "above 0, and finite",
        _numbers(lambda number: 0 < number < math.inf),
        "INPUT.CROP.SIZE SOLVER.BASE_LR SOLVER.GAMMA SOLVER.CLIP_GRADIENTS.CLIP_VALUE MODEL.PIXEL_STD "
        "MODEL.ANCHOR_GENERATOR.SIZES MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS MODEL.RPN.BBOX_REG_WEIGHTS "
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    ),
    (
        "from 0 to 1",
        _numbers(lambda number: 0 <= number <= 1),
        "SOLVER.MOMENTUM SOLVER.WARMUP_FACTOR MODEL.ANCHOR_GENERATOR.OFFSET MODEL.RPN.POSITIVE_FRACTION "
        "MODEL.RPN.NMS_THRESH MODEL.RPN.IOU_THRESHOLDS MODEL.ROI_HEADS.POSITIVE_FRACTION "
        "MODEL.ROI_HEADS.IOU_THRESHOLDS MODEL.ROI_HEADS.SCORE_THRESH_TEST MODEL.ROI_HEADS.NMS_THRESH_TEST "
        "MODEL.RETINANET.SCORE_THRESH_TEST MODEL.RETINANET.NMS_THRESH_TEST",
    ),
    (
        "1 or more, or -1 for all",
        _numbers(lambda number: number >= 1 or number == -1),
        "TEST.DETECTIONS_PER_IMAGE",
    ),
    ("from 0 to 5", _numbers(lambda number: 0 <= number <= 5), "MODEL.BACKBONE.FREEZE_AT"),
    (
        "increasing",
        lambda numbers: all(a < b for a, b in pairwise(numbers)),
        "SOLVER.STEPS MODEL.RPN.IOU_THRESHOLDS MODEL.ROI_HEADS.IOU_THRESHOLDS",
    ),
    ("2 numbers", lambda numbers: len(numbers) == 2, "INPUT.CROP.SIZE"),
    (
        "4 numbers",
        lambda numbers: len(numbers) == 4,
        "MODEL.RPN.BBOX_REG_WEIGHTS MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS",
    ),
    (
        "a list of [task, metric, value, tolerance]",
        lambda rows: all(isinstance(row, Sequence) and len(row) == 4 for row in rows),
        "TEST.EXPECTED_RESULTS",
    ),
    (
        'a norm like "BN", "SyncBN", "FrozenBN", "GN" or ""',
        _is_norm,
        "MODEL.RESNETS.NORM MODEL.FPN.NORM MODEL.ROI_BOX_HEAD.NORM MODEL.ROI_MASK_HEAD.NORM",
    ),
)
_LOSSES = (
    "smooth_l1",
    *(name for name in ("giou", "diou", "ciou") if hasattr(box_regression, f"{name}_loss")),
)
_POOLERS = ("ROIAlign", "ROIAlignV2", "ROIPool", "ROIAlignRotated")
_CHOICES: dict[str, Sequence[object] | Registry] = {
    "INPUT.FORMAT": ("BGR", "RGB", "L", "HSV", "LAB", "YCbCr", "YUV-BT.601"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask"),
    "INPUT.RANDOM_FLIP": ("none", "horizontal", "vertical"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("relative", "relative_range", "absolute", "absolute_range"),
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": ("value", "norm"),
    "MODEL.META_ARCHITECTURE": META_ARCH_REGISTRY,
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.RESNETS.DEPTH": (18, 34, 50, 101, 152),
    "MODEL.RESNETS.RES5_DILATION": (1, 2),
    "MODEL.FPN.FUSE_TYPE": ("sum", "avg"),
    "MODEL.ANCHOR_GENERATOR.NAME": ANCHOR_GENERATOR_REGISTRY,
    "MODEL.PROPOSAL_GENERATOR.NAME": (
        "PrecomputedProposals",
        *(name for name, _ in PROPOSAL_GENERATOR_REGISTRY),
    ),
    "MODEL.RPN.HEAD_NAME": RPN_HEAD_REGISTRY,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.ROI_HEADS.NAME": ROI_HEADS_REGISTRY,
    "MODEL.ROI_BOX_HEAD.NAME": ROI_BOX_HEAD_REGISTRY,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": _LOSSES,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_MASK_HEAD.NAME": ROI_MASK_HEAD_REGISTRY,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": _POOLERS,
    "MODEL.ROI_KEYPOINT_HEAD.NAME": ROI_KEYPOINT_HEAD_REGISTRY,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": _POOLERS,
}


def check_values(cfg: CfgNode) -> None:
    """Refuse a value that Detectron2 cannot use.

    Raises:
        UserError: naming the key, the rule and the value.
    """
    defaults = get_detectron2_cfg()
    for key, rule in _broken(cfg, defaults):
        raise UserError(f"{key} must be {rule}; got {_value(cfg, key)!r}.")


def _broken(cfg: CfgNode, defaults: CfgNode) -> Iterator[tuple[str, str]]:
    """The keys whose values break a rule, with the rule."""
    for rule, test, keys in _RULES:
        yield from (
            (key, rule) for key in _changed(cfg, defaults, keys.split()) if not test(_value(cfg, key))
        )
    for key in _changed(cfg, defaults, _CHOICES):
        choices, value = _CHOICES[key], _value(cfg, key)
        if value not in choices:
            names = sorted(name for name, _ in choices) if isinstance(choices, Registry) else choices
            yield key, f"one of {', '.join(map(repr, names))}"
    yield from ((key, rule) for key, rule, holds in _relations(cfg) if not holds)


def _changed(cfg: CfgNode, defaults: CfgNode, keys: Iterable[str]) -> Iterator[str]:
    return (key for key in keys if _value(cfg, key) not in (None, _value(defaults, key)))


def _value(cfg: CfgNode, key: str) -> Any:
    """The value of a key with its sections; None if the config has it not."""
    return reduce(lambda node, part: getattr(node, part, None), key.split("."), cfg)


def _relations(cfg: CfgNode) -> Iterator[tuple[str, str, bool]]:
    """Rules of one key that depend on another: the key, the rule, and whether it holds."""
    crop, model, sizes = cfg.INPUT.CROP, cfg.MODEL, cfg.INPUT.MIN_SIZE_TRAIN
    is_range = cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING == "range"
    yield "INPUT.MIN_SIZE_TRAIN", "2 sizes to sample a range", not is_range or len(sizes) == 2
    is_relative = crop.ENABLED and crop.TYPE.startswith("relative")
    yield "INPUT.CROP.SIZE", f"1 at most to be {crop.TYPE}", not is_relative or max(crop.SIZE) <= 1
    count = len(model.PIXEL_MEAN)
    yield "MODEL.PIXEL_STD", f"as many numbers as MODEL.PIXEL_MEAN, {count}", len(model.PIXEL_STD) == count
    for name in ("RPN", "ROI_HEADS"):
        count = len(model[name].IOU_THRESHOLDS) + 1
        rule = f"{count} labels, one more than MODEL.{name}.IOU_THRESHOLDS"
        yield f"MODEL.{name}.IOU_LABELS", rule, len(model[name].IOU_LABELS) == count
    has_layers = model.ROI_BOX_HEAD.NUM_FC + model.ROI_BOX_HEAD.NUM_CONV > 0
    needs_layers = model.ROI_BOX_HEAD.NAME == "FastRCNNConvFCHead"
    yield "MODEL.ROI_BOX_HEAD.NUM_FC", "1 or more where NUM_CONV is 0", has_layers or not needs_layers
