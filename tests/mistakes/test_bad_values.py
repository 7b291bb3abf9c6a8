"""Values of the config: each key of MODEL.NON_LOCAL, and what does not go together.

Detectron2 checks its own keys, and what it refuses keeps its traceback.
"""

from collections.abc import Callable

import pytest
from runs import KEYPOINT, MASK

from nl_detectron import get_cfg

Refused = Callable[..., str]

DEFAULTS = get_cfg().MODEL.NON_LOCAL
OF_ANOTHER_TYPE = {  # by the type of the default: a value, and what is said
    list: ("5", "of type list; got '5'. Write"),
    int: ("1.5", "of type int; got '1.5'."),
    str: ("3", "of type str; got '3'."),
    bool: ("1", "of type bool; got '1'."),
}
PLACES = "a list of integers from -2 to 2, as the stage has 2 blocks; got {}"
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
        (MASK, "MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY 2", "HEAD_EVERY is set, but keypoint head 'KRCNNConv"),
        (
            KEYPOINT,
            "MODEL.NON_LOCAL.RES3 [1]",
            "RES3 is set, but backbone 'build_resnet_fpn_backbone'",
        ),
        (MASK.replace("_nl", ""), "MODEL.NON_LOCAL.RES4 [-1]", "Use build_nl_resnet_fpn_backbone."),
        (KEYPOINT, "MODEL.KEYPOINT_ON False", "the model has no keypoint head. Set MODEL.KEYPOINT_ON."),
        (KEYPOINT, "TEST.AUG.ENABLED True", "Set TEST.AUG.ENABLED to False."),
        (MASK, "MODEL.KEYPOINT_ON True", "'shapes_train' has no keypoints, but MODEL.KEYPOINT_ON is True."),
        (MASK, "MODEL.ROI_HEADS.NUM_CLASSES 2", "MODEL.ROI_HEADS.NUM_CLASSES is 2, but 'shapes_train' has 4"),
        (KEYPOINT, "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS 5", "NUM_KEYPOINTS is 5, but 'keypoints_shapes_tr"),
        (
            KEYPOINT,
            "TEST.KEYPOINT_OKS_SIGMAS [0.1]",
            "a number for each of the 17 keypoints of 'keypoints_",
        ),
    ],
)
def test_what_does_not_go_together(config: str, options: str, message: str, refused: Refused) -> None:
    assert message in refused("--config-file", config, *options.split())
