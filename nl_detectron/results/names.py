"""How models and variants are called in tables and plots."""

from detectron2.config import CfgNode

from nl_detectron.config import BACKBONE_BUILDERS, DEEPER_BACKBONE, KEYPOINT_HEAD, STAGES, get_cfg

BASELINE = "baseline"
_STAGE_SIZES = {  # residual blocks in res2 to res5, by RESNETS.DEPTH
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


def model_of(cfg: CfgNode) -> str:
    """As "Mask R-CNN R50-FPN"; a user's own backbone by the name of its builder."""
    builder, resnets = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.RESNETS
    backbone = f"{'X' if resnets.NUM_GROUPS > 1 else 'R'}{resnets.DEPTH}{_neck(cfg)}"
    is_rcnn = cfg.MODEL.META_ARCHITECTURE == "GeneralizedRCNN"
    architecture = f"{_kind(cfg)} R-CNN" if is_rcnn else cfg.MODEL.META_ARCHITECTURE
    return f"{architecture} {backbone if 'resnet' in builder else builder}"


def _neck(cfg: CfgNode) -> str:
    """What the heads see of the ResNet, as the model zoo calls it."""
    if "fpn" in cfg.MODEL.BACKBONE.NAME:
        return "-FPN"
    if cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads":
        return "-C4"
    return "-DC5" if cfg.MODEL.RESNETS.RES5_DILATION == 2 else ""


def _kind(cfg: CfgNode) -> str:
    heads = "Keypoint" if cfg.MODEL.KEYPOINT_ON else "Mask" if cfg.MODEL.MASK_ON else "Faster"
    if cfg.MODEL.ROI_HEADS.NAME != "CascadeROIHeads":
        return heads
    return "Cascade" if heads == "Faster" else f"Cascade {heads}"


def blocks_of(cfg: CfgNode) -> str:
    """All that a config says of its blocks, as "+1 NL in res4"; or "baseline"."""
    node, default = cfg.MODEL.NON_LOCAL, get_cfg().MODEL.NON_LOCAL
    places = []
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        every = node.KEYPOINT_HEAD_EVERY
        count = len(cfg.MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS) // every
        places.append(f"+{count} NL in head" + f" (every {every})" * (every != default.KEYPOINT_HEAD_EVERY))
    if cfg.MODEL.BACKBONE.NAME in BACKBONE_BUILDERS:
        for stage, n in zip(STAGES, _STAGE_SIZES[cfg.MODEL.RESNETS.DEPTH], strict=True):
            if indices := sorted(k + n if k < 0 else k for k in node[stage.upper()]):
                places.append(f"+{len(indices)} NL in {stage}" + f" {indices}" * (indices != [n - 1]))
    elif cfg.MODEL.BACKBONE.NAME == DEEPER_BACKBONE:
        return ", ".join([*places, "+1 residual block in res4"])
    arguments = ("PAIRWISE", "REDUCTION", "SUBSAMPLE", "SCALE", "NORM")
    others = [f"{key} {node[key]}" for key in arguments if node[key] != default[key]]
    return ", ".join(places + others) if places else BASELINE


def count_seeds(runs: list) -> str:
    return f"{len(runs)} seed{'s' * (len(runs) > 1)}"
