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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RES3", [1], r"backbone .*ignores it\. Use build_nl_resnet_backbone"),
        ("PAIRWISE", "gaussian", "backbone"),
        ("KEYPOINT_HEAD_EVERY", 1, "keypoint head .*Use NonLocalKRCNN"),
    ],
)
def test_a_placement_that_nothing_reads_is_refused(key: str, value: object, message: str) -> None:
    cfg = get_cfg()
    check_non_local_keys(cfg)
    cfg.MODEL.NON_LOCAL[key] = value
    with pytest.raises(ValueError, match=f"MODEL.NON_LOCAL.{key} is set, but {message}"):
        check_non_local_keys(cfg)


def test_a_placement_that_is_read_is_accepted(mask_cfg: CfgNode, keypoint_cfg: CfgNode) -> None:
    mask_cfg.merge_from_list(["MODEL.NON_LOCAL.RES3", [1], "MODEL.NON_LOCAL.NORM", "GN"])
    check_non_local_keys(mask_cfg)
    keypoint_cfg.merge_from_list(["MODEL.NON_LOCAL.KEYPOINT_HEAD_EVERY", 1])
    check_non_local_keys(keypoint_cfg)


def test_a_builder_of_the_users_own_may_place_blocks() -> None:
    cfg = get_cfg()
    cfg.MODEL.NON_LOCAL.RES3 = [1]
    for name, accepted in (("my_backbone", True), ("build_resnet_backbone", False)):
        cfg.MODEL.BACKBONE.NAME = name
        with nullcontext() if accepted else pytest.raises(ValueError, match="RES3 is set"):
            check_non_local_keys(cfg)
