"""The config node, and configs that would train a "+NL" model without a block in it."""

from contextlib import nullcontext

import pytest
from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg

from nl_detectron import add_non_local_config, get_cfg
from nl_detectron.config import check_non_local_keys


def test_defaults() -> None:
    assert dict(get_cfg().MODEL.NON_LOCAL) == {
        "RES2": [],
        "RES3": [],
        "RES4": [-1],
        "RES5": [],
        "KEYPOINT_HEAD_EVERY": 2,
        "PAIRWISE": "embedded_gaussian",
        "REDUCTION": 2,
        "SUBSAMPLE": "input",
        "SCALE": True,
        "NORM": "BN",
    }


def test_is_idempotent() -> None:
    cfg = get_detectron2_cfg()
    add_non_local_config(cfg)
    cfg.MODEL.NON_LOCAL.RES4 = [1, 2]
    add_non_local_config(cfg)
    assert cfg.MODEL.NON_LOCAL.RES4 == [1, 2]
    cfg.freeze()
    add_non_local_config(cfg)


def test_touches_nothing_else() -> None:
    without = get_detectron2_cfg()
    del without.MODEL["NON_LOCAL"]
    cfg = without.clone()
    add_non_local_config(cfg)
    assert cfg == get_cfg()
    del cfg.MODEL["NON_LOCAL"]
    assert cfg == without


def test_detectron2s_own_config_has_it() -> None:
    assert get_detectron2_cfg() == get_cfg()


def test_misspelt_key() -> None:
    with pytest.raises((KeyError, AssertionError), match="MODEL.NON_LOCAL.PAIRWIZE"):
        get_cfg().merge_from_list(["MODEL.NON_LOCAL.PAIRWIZE", "gaussian"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["MODEL.NON_LOCAL.RES3", [1]],
            r"RES3 is set, but backbone .*ignores it\. Use build_nl_resnet_backbone",
        ),
        (["MODEL.NON_LOCAL.PAIRWISE", "gaussian"], "PAIRWISE is set, but backbone"),
        (
            ["MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY", 1],
            "KEYPOINT_HEAD_EVERY is set, but keypoint head .*Use NonLocalKRCNN",
        ),
    ],
)
def test_a_placement_that_nothing_reads_is_refused(overrides: list, message: str) -> None:
    cfg = get_cfg()
    check_non_local_keys(cfg)
    cfg.merge_from_list(overrides)
    with pytest.raises(ValueError, match="MODEL.NON_LOCAL." + message):
        check_non_local_keys(cfg)


def test_a_placement_that_is_read_is_accepted(mask_cfg: CfgNode, keypoint_cfg: CfgNode) -> None:
    mask_cfg.merge_from_list(["MODEL.NON_LOCAL.RES3", [1], "MODEL.NON_LOCAL.NORM", "GN"])
    check_non_local_keys(mask_cfg)
    keypoint_cfg.merge_from_list(["MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY", 1])
    check_non_local_keys(keypoint_cfg)
    keypoint_cfg.MODEL.NON_LOCAL.RES3 = [1]
    with pytest.raises(ValueError, match="NON_LOCAL.RES3 is set, but .*Use build_nl_resnet_fpn_backbone"):
        check_non_local_keys(keypoint_cfg)


def test_a_default_value_given_in_vain_is_refused() -> None:
    """RES4 [-1] for a baseline is the likeliest way to a "+NL" run without a block."""
    cfg = get_cfg()
    with pytest.raises(ValueError, match="MODEL.NON_LOCAL.RES4 is set, but backbone"):
        check_non_local_keys(cfg, given=["MODEL.NON_LOCAL.RES4"])


def test_a_head_with_blocks_in_a_model_without_keypoints_is_refused(keypoint_cfg: CfgNode) -> None:
    keypoint_cfg.MODEL.KEYPOINT_ON = False
    with pytest.raises(ValueError, match="no keypoint head. Set MODEL.KEYPOINT_ON"):
        check_non_local_keys(keypoint_cfg)


def test_a_builder_of_the_users_own_may_place_blocks() -> None:
    cfg = get_cfg()
    cfg.MODEL.NON_LOCAL.RES3 = [1]
    for name, accepted in (("my_backbone", True), ("build_resnet_backbone", False)):
        cfg.MODEL.BACKBONE.NAME = name
        with nullcontext() if accepted else pytest.raises(ValueError, match="RES3 is set"):
            check_non_local_keys(cfg)
