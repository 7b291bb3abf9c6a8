"""How models and variants are called in tables and plots."""

from detectron2.config import CfgNode

from nl_detectron.config import BACKBONE_BUILDERS, KEYPOINT_HEAD, STAGES, get_cfg

BASELINE = "baseline"


def model_of(cfg: CfgNode) -> str:
    """As "Mask R-CNN R50-FPN"; a user's own backbone by the name of its builder."""
    builder, resnets = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    backbone = f"{'X' if resnets.NUM_GROUPS > 1 else 'R'}{resnets.DEPTH}{'-FPN' * ('fpn' in builder)}"
    kind = "Keypoint" if cfg.MODEL.KEYPOINT_ON else "Mask" if cfg.MODEL.MASK_ON else "Faster"
    is_rcnn = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    architecture = f"{kind} R-CNN" if is_rcnn else cfg.MODEL.META_ARCHITECTURE
    return f"{architecture} {backbone if 'resnet' in builder else builder}"


def blocks_of(cfg: CfgNode) -> str:
    """All that a config says of its blocks, as "+1 NL in res4"; or "baseline"."""
    node, default = cfg.MODEL.NON_LOCAL, get_cfg().MODEL.NON_LOCAL
    places = []
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        every = node.KEYPOINT_HEAD_EVERY
        count = len(cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS) // every
        places.append(f"+{count} NL in head" + f" (every {every})" * (every != default.KEYPOINT_HEAD_EVERY))
    if cfg.MODEL.BACKBONE.NAME in BACKBONE_BUILDERS:
        for stage in STAGES:
            if indices := node[stage.upper()]:
                places.append(f"+{len(indices)} NL in {stage}" + f" {indices}" * (indices != [-1]))
    arguments = ("PAIRWISE", "REDUCTION", "SUBSAMPLE", "SCALE", "NORM")
    others = [f"{key} {node[key]}" for key in arguments if node[key] != default[key]]
    return ", ".join(places + others) if places else BASELINE


def count_seeds(runs: list) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"
