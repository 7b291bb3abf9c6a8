"""Values of the config: each key of MODEL.NON_LOCAL, and what people get wrong of Detectron2's own."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import detectron2.model_zoo
import pytest
from nl_detectron.engine.merging import merge_file
from nl_detectron.engine.values import check_values

from nl_detectron import get_cfg

MASK = "quick_schedules/mask_rcnn_R_18_FPN_nl_shapes.yaml"
KEYPOINT = "quick_schedules/keypoint_rcnn_R_18_FPN_nl_head_shapes.yaml"
Refused = Callable[..., str]

DEFAULTS = get_cfg().MODEL.NON_LOCAL
OF_ANOTHER_TYPE = {  # by the type of the default: a value, and what is said
    list: ("5", "a list; got '5'. Write one of numbers as \"[1]\""),
    int: ("1.5", "a whole number; got '1.5'."),
    str: ("3", "a string; got '3'."),
    bool: ("1", "True or False; got '1'."),
}
NONE = {list: "a list", int: "a number", str: "a string", bool: "a bool"}
PLACES = "a list of integers from -2 to 2, as the stage has 2 residual blocks; got {}"
WRONG = {  # SCALE, which is True or False, has none
    "RES2": ("[9]", PLACES.format("[9]")),
    "RES3": ("[1.5]", PLACES.format("[1.5]")),
    "RES4": ("[-1,1]", "a list of places without a non-local block, each once; got [-1, 1]"),
    "RES5": ("['a']", PLACES.format("['a']")),
    "KEYPOINT_HEAD_EVERY": ("9", "an integer from 1 to the 8 convolutions of the keypoint head; got 9"),
    "PAIRWISE": ("max", "one of 'gaussian', 'embedded_gaussian', 'dot_product', 'concatenation'; got 'max'"),
    "REDUCTION": ("3", "a positive integer that divides the 256 channels of x; got 3"),
    "SUBSAMPLE": ("pool", "one of 'input', 'embedding', 'none'; got 'pool'"),
    "NORM": ("XN", "a norm that Detectron2's get_norm has for 256 channels; got 'XN'"),
}


def config_of(key: str) -> str:
    return KEYPOINT if key == "KEYPOINT_HEAD_EVERY" else MASK


@pytest.mark.parametrize("key", DEFAULTS)
def test_another_type(key: str, refused: Refused) -> None:
    value, rule = OF_ANOTHER_TYPE[type(DEFAULTS[key])]
    message = refused("--config-file", config_of(key), f"MODEL.NON_LOCAL.{key}", value)
    assert message.startswith(f"MODEL.NON_LOCAL.{key} must be {rule}")


@pytest.mark.parametrize("key", DEFAULTS)
def test_none(key: str, refused: Refused) -> None:
    message = refused("--config-file", config_of(key), f"MODEL.NON_LOCAL.{key}", "None")
    assert message == f"MODEL.NON_LOCAL.{key} must be {NONE[type(DEFAULTS[key])]}; got None."


@pytest.mark.parametrize("key", WRONG)
def test_wrong_value(key: str, refused: Refused) -> None:
    value, rule = WRONG[key]
    message = refused("--config-file", config_of(key), f"MODEL.NON_LOCAL.{key}", value)
    assert message.startswith(f"MODEL.NON_LOCAL.{key} must be {rule}.")


def test_every_key_has_a_wrong_value() -> None:
    assert WRONG.keys() | {"SCALE"} == DEFAULTS.keys()


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (MASK, "MODEL.NON_LOCAL.RES4 []", "MODEL.NON_LOCAL.RES4 must be a list with"),
        (MASK, "MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY 2", "HEAD_EVERY must be left alone where nothing reads"),
        (KEYPOINT, "MODEL.NON_LOCAL.RES3 [1]", "RES3 must be left alone where nothing reads it; got [1]"),
        (MASK.replace("_nl", ""), "MODEL.NON_LOCAL.RES4 [-1]", "RES4 must be left alone"),
        (
            KEYPOINT,
            "MODEL.KEYPOINT_ON False",
            "head without non-local blocks where there is no keypoint head",
        ),
        (KEYPOINT, "TEST.AUG.ENABLED True", "TEST.AUG.ENABLED must be False for this model; got True"),
        (
            MASK,
            "MODEL.KEYPOINT_ON True",
            "with keypoints, as MODEL.KEYPOINT_ON is True; 'shapes_train' has none",
        ),
        (
            MASK,
            "MODEL.ROI_HEADS.NUM_CLASSES 2",
            "MODEL.ROI_HEADS.NUM_CLASSES must be 4, as 'shapes_train' of",
        ),
        (
            KEYPOINT,
            "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 5",
            "NUM_KEYPOINTS must be 17, as 'keypoints_shapes",
        ),
        (
            KEYPOINT,
            "TEST.KEYPOINT_OKS_SIGMAS [0.1]",
            "a number for each of the 17 keypoints of 'keypoints_sh",
        ),
    ],
)
def test_what_does_not_go_together(config: str, options: str, message: str, refused: Refused) -> None:
    assert message in refused("--config-file", config, *options.split())


ROWS = """
MODEL.DEVICE gpu                          | a device like 'cuda' or 'cpu'; got 'gpu'
MODEL.DEVICE meta                         | a device like 'cuda' or 'cpu'; got 'meta'
MODEL.WEIGHTS None                        | a string; got None
MODEL.MASK_ON 1                           | True or False; got '1'
MODEL.META_ARCHITECTURE RCNN              | one of 'GeneralizedRCNN', .*; got 'RCNN'
MODEL.PIXEL_MEAN [1.0]                    | as many numbers as MODEL.PIXEL_MEAN, 1; got [57.375
MODEL.PIXEL_STD [0.0,0.0,0.0]             | above 0, and finite; got [0.0, 0.0, 0.0]
SOLVER.BASE_LR 1                          | a number with a point; got '1'. Write 1 as 1.0.
SOLVER.BASE_LR None                       | a number; got None
SOLVER.BASE_LR -0.1                       | above 0, and finite; got -0.1
SOLVER.BASE_LR 0.0                        | above 0, and finite; got 0.0
SOLVER.BASE_LR 1e999                      | above 0, and finite; got inf
SOLVER.BASE_LR nan                        | a number with a point; got 'nan'
SOLVER.MAX_ITER 0                         | 1 or more; got 0
SOLVER.MAX_ITER 1e4                       | a whole number; got '1e4'
SOLVER.STEPS 30                           | a tuple; got '30'
SOLVER.STEPS (9,3)                        | increasing; got (9, 3)
SOLVER.STEPS ('a',)                       | 0 or more; got ('a',)
SOLVER.GAMMA -0.1                         | above 0, and finite; got -0.1
SOLVER.MOMENTUM 2.0                       | from 0 to 1; got 2.0
SOLVER.WEIGHT_DECAY -1.0                  | 0 or more; got -1.0
SOLVER.WARMUP_ITERS -1                    | 0 or more; got -1
SOLVER.WARMUP_FACTOR -1.0                 | from 0 to 1; got -1.0
SOLVER.WARMUP_METHOD cosine               | one of 'linear', 'constant'; got 'cosine'
SOLVER.CHECKPOINT_PERIOD 0                | 1 or more; got 0
SOLVER.IMS_PER_BATCH 0                    | a positive multiple of 1 (the processes); got 0
SOLVER.REFERENCE_WORLD_SIZE -1            | a number of GPUs, or 0; got -1
SOLVER.CLIP_GRADIENTS.CLIP_TYPE max       | one of 'value', 'norm'; got 'max'
INPUT.MIN_SIZE_TRAIN 800                  | a tuple; got '800'. Write one of numbers as "(1,)"
INPUT.MIN_SIZE_TRAIN ()                   | a tuple of lengths in pixels; got ()
INPUT.MIN_SIZE_TRAIN (-8,)                | 0 or more; got (-8,)
INPUT.MAX_SIZE_TRAIN 0                    | 1 or more; got 0
INPUT.MIN_SIZE_TEST -1                    | 0 or more; got -1
INPUT.MAX_SIZE_TEST 0                     | 1 or more; got 0
INPUT.MIN_SIZE_TRAIN_SAMPLING both        | one of 'choice', 'range'; got 'both'
INPUT.FORMAT BRG                          | one of 'BGR', 'RGB', .*; got 'BRG'
INPUT.MASK_FORMAT rle                     | one of 'polygon', 'bitmask'; got 'rle'
INPUT.RANDOM_FLIP True                    | a string; got 'True'
INPUT.RANDOM_FLIP both                    | one of 'none', 'horizontal', 'vertical'; got 'both'
INPUT.CROP.TYPE half                      | one of 'relative', .*; got 'half'
INPUT.CROP.SIZE [0.5]                     | 2 numbers; got [0.5]
DATALOADER.NUM_WORKERS -1                 | 0 or more; got -1
DATASETS.TRAIN shapes_train               | a tuple; got 'shapes_train'. .* one of names as "('a',)"
DATASETS.TRAIN (1,)                       | a tuple of names; got (1,)
DATASETS.TEST None                        | a tuple; got None
TEST.DETECTIONS_PER_IMAGE 0               | 1 or more, or -1 for all; got 0
TEST.EXPECTED_RESULTS [['bbox','AP']]     | a list of [task, metric, value, tolerance]; got [['bbox', 'AP']]
TEST.AUG.MIN_SIZES ()                     | not empty; got ()
TEST.AUG.MAX_SIZE 0                       | 1 or more; got 0
TEST.PRECISE_BN.NUM_ITER 0                | 1 or more; got 0
MODEL.BACKBONE.NAME no_backbone           | one of .*'build_nl_resnet_backbone', .*; got 'no_backbone'
MODEL.BACKBONE.FREEZE_AT 9                | from 0 to 5; got 9
MODEL.RESNETS.DEPTH 51                    | one of 18, 34, 50, 101, 152; got 51
MODEL.RESNETS.NORM XN                     | a norm like "BN", .*; got 'XN'
MODEL.RESNETS.OUT_FEATURES []             | not empty; got []
MODEL.RESNETS.RES5_DILATION 3             | one of 1, 2; got 3
MODEL.FPN.OUT_CHANNELS 0                  | 1 or more; got 0
MODEL.FPN.NORM XN                         | a norm like "BN", .*; got 'XN'
MODEL.FPN.FUSE_TYPE max                   | one of 'sum', 'avg'; got 'max'
MODEL.ANCHOR_GENERATOR.NAME Anchors       | one of 'DefaultAnchorGenerator', .*; got 'Anchors'
MODEL.ANCHOR_GENERATOR.SIZES [[-32]]      | above 0, and finite; got [[-32]]
MODEL.ANCHOR_GENERATOR.SIZES []           | not empty; got []
MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS [[0.0]] | above 0, and finite; got [[0.0]]
MODEL.ANCHOR_GENERATOR.OFFSET 1.5         | from 0 to 1; got 1.5
MODEL.PROPOSAL_GENERATOR.NAME RPM         | one of 'PrecomputedProposals', 'RPN', .*; got 'RPM'
MODEL.RPN.HEAD_NAME Head                  | one of .*'StandardRPNHead'.*; got 'Head'
MODEL.RPN.IOU_THRESHOLDS [0.7,0.3]        | increasing; got [0.7, 0.3]
MODEL.RPN.IOU_LABELS [0,1]                | 3 labels, one more than MODEL.RPN.IOU_THRESHOLDS; got [0, 1]
MODEL.RPN.BATCH_SIZE_PER_IMAGE 0          | 1 or more; got 0
MODEL.RPN.POSITIVE_FRACTION 2.0           | from 0 to 1; got 2.0
MODEL.RPN.NMS_THRESH 7.0                  | from 0 to 1; got 7.0
MODEL.RPN.PRE_NMS_TOPK_TRAIN -1           | 1 or more; got -1
MODEL.RPN.POST_NMS_TOPK_TEST 0            | 1 or more; got 0
MODEL.RPN.BBOX_REG_LOSS_TYPE l3           | one of 'smooth_l1', .*; got 'l3'
MODEL.ROI_HEADS.NAME Heads                | one of .*'StandardROIHeads'.*; got 'Heads'
MODEL.ROI_HEADS.NUM_CLASSES 0             | 1 or more; got 0
MODEL.ROI_HEADS.IN_FEATURES []            | not empty; got []
MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE 0    | 1 or more; got 0
MODEL.ROI_HEADS.POSITIVE_FRACTION -0.5    | from 0 to 1; got -0.5
MODEL.ROI_HEADS.SCORE_THRESH_TEST 5.0     | from 0 to 1; got 5.0
MODEL.ROI_HEADS.NMS_THRESH_TEST 50.0      | from 0 to 1; got 50.0
MODEL.ROI_BOX_HEAD.NAME Head              | one of .*'FastRCNNConvFCHead'.*; got 'Head'
MODEL.ROI_BOX_HEAD.POOLER_TYPE Align      | one of 'ROIAlign', .*; got 'Align'
MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION 0    | 1 or more; got 0
MODEL.ROI_BOX_HEAD.FC_DIM 0               | 1 or more; got 0
MODEL.ROI_BOX_HEAD.NUM_FC 0               | 1 or more where NUM_CONV is 0; got 0
MODEL.ROI_BOX_HEAD.NORM XN                | a norm like "BN", .*; got 'XN'
MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS (1.0,)| 4 numbers; got (1.0,)
MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE l3  | one of 'smooth_l1', .*; got 'l3'
MODEL.ROI_MASK_HEAD.NAME Head             | one of .*'MaskRCNNConvUpsampleHead'.*; got 'Head'
MODEL.ROI_MASK_HEAD.POOLER_TYPE Align     | one of 'ROIAlign', .*; got 'Align'
MODEL.ROI_MASK_HEAD.CONV_DIM 0            | 1 or more; got 0
MODEL.ROI_KEYPOINT_HEAD.NAME Head         | one of .*'KRCNNConvDeconvUpsampleHead', .*; got 'Head'
"""


@pytest.mark.parametrize("row", ROWS.strip().splitlines(), ids=lambda row: row.split("|")[0].strip())
def test_detectron2s_keys(row: str, refused: Refused) -> None:
    """An option, and what its key must be. `.*` stands for any text."""
    option, rule = (part.strip() for part in row.split("|"))
    key, value = option.split(" ", 1)
    message = refused("--config-file", MASK, key, value)
    named = "MODEL.PIXEL_STD" if key == "MODEL.PIXEL_MEAN" else key
    expected = re.escape(f"{named} must be {rule}").replace(r"\.\*", ".*")
    assert re.match(expected, message), message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "INPUT.CROP.ENABLED True INPUT.CROP.SIZE [2.0,2.0]",
            "INPUT.CROP.SIZE must be 1 at most to be relative_r",
        ),
        (
            "INPUT.MIN_SIZE_TRAIN (1,2,3) INPUT.MIN_SIZE_TRAIN_SAMPLING range",
            "MIN_SIZE_TRAIN must be 2 sizes to",
        ),
        (
            "MODEL.ROI_HEADS.IOU_THRESHOLDS [0.5,0.6]",
            "MODEL.ROI_HEADS.IOU_LABELS must be 3 labels, one more than",
        ),
        (
            "MODEL.RESNETS.NUM_GROUPS 3",
            "cannot build this model: AssertionError: Must set MODEL.RESNETS.NUM_GROUPS",
        ),
        ("MODEL.RPN.IN_FEATURES \"['p9']\"", "Detectron2 cannot build this model: KeyError: p9"),
        (
            "MODEL.ANCHOR_GENERATOR.SIZES [[8],[9]]",
            "Got sizes of length 2 in anchor generator, but the number of",
        ),
        (
            "SOLVER.LR_SCHEDULER_NAME Foo",
            "Detectron2 cannot set up this training: ValueError: Unknown LR sched",
        ),
        (
            "DATALOADER.SAMPLER_TRAIN Foo",
            "Detectron2 cannot set up this training: ValueError: Unknown training s",
        ),
        ("MODEL.LOAD_PROPOSALS True DATASETS.PROPOSAL_FILES_TRAIN \"('x.pkl',)\"", "No such file .*'x.pkl'"),
    ],
)
def test_keys_that_depend_on_others(options: str, message: str, refused: Refused) -> None:
    assert re.search(message, refused("--config-file", MASK, *shlex.split(options)))


def test_nothing_right_is_refused() -> None:
    """Every config of Detectron2's model zoo."""
    configs = sorted((Path(detectron2.model_zoo.__file__).parent / "configs").rglob("*.yaml"))
    assert len(configs) > 50
    for config in configs:
        cfg = get_cfg()
        merge_file(cfg, str(config))
        check_values(cfg)


def test_polygons_are_cut_by_shapely(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which Detectron2 does not install; without it, the first step would fail."""
    monkeypatch.setattr("nl_detectron.engine.preflight.find_spec", lambda name: None)
    crop = ("--config-file", MASK, "INPUT.CROP.ENABLED", "True")
    assert "must be False where the package shapely is not installed" in refused(*crop)
    assert "shapely" not in refused(*crop, "INPUT.MASK_FORMAT", "bitmask", "MODEL.WEIGHTS", "no.pth")
    assert "shapely" not in refused(crop[0], crop[1], "--eval-only", *crop[2:], "MODEL.WEIGHTS", "no.pth")


def test_a_gpu_that_is_not_there(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    message = refused("--config-file", MASK, "MODEL.DEVICE", "cuda:2")
    assert message == "MODEL.DEVICE must be one of the 2 GPUs, from 'cuda:0' on; got 'cuda:2'."
