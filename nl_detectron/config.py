"""The config node `MODEL.NON_LOCAL`: its keys, and how they reach the blocks. And one key of training."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.roi_heads import ROI_KEYPOINT_HEAD_REGISTRY
from fvcore.common.registry import Registry

from nl_detectron.errors import ArgumentError, UserError

STAGES = ("res2", "res3", "res4", "res5")
BACKBONE_BUILDERS = (
    "build_nl_resnet_backbone",
    "build_nl_resnet_fpn_backbone",
    "build_nl_retinanet_resnet_fpn_backbone",
)
DEEPER_BACKBONE = "build_deeper_resnet_fpn_backbone"
KEYPOINT_HEAD = "NonLocalKRCNNConvDeconvUpsampleHead"


def add_non_local_config(cfg: CfgNode) -> None:
    """Add `MODEL.NON_LOCAL` and `SOLVER.AMP.PRECISION` with their defaults, in place; a config keeps
    what it has of them."""
    if "PRECISION" not in cfg.SOLVER.AMP:
        # What the model computes in, in training and evaluation: "bfloat16", "float16" (which needs
        # SOLVER.AMP.ENABLED and a GPU), or "" for float32, or for Detectron2's float16 in training where
        # SOLVER.AMP.ENABLED. Read by nl_detectron's own train_net.py.
        cfg.SOLVER.AMP.PRECISION = ""
    if "NON_LOCAL" in cfg.MODEL:
        return
    node = CfgNode()
    # Where blocks go, one list per ResNet stage: k means right before residual block k of the stage
    # (Python style: -1 before the last one; the number of blocks: after the last one).
    # Read by the build_nl_* backbones, which refuse to place no block at all.
    node.RES2 = []
    node.RES3 = []
    node.RES4 = [-1]
    node.RES5 = []
    # A block after every so many convolutions of the keypoint head (and their ReLU).
    # Read by MODEL.ROI_KEYPOINT_HEAD.NAME "NonLocalKRCNNConvDeconvUpsampleHead".
    node.KEYPOINT_HEAD_EVERY = 2
    # f(x_i, x_j): "gaussian" (Eq. 2), "embedded_gaussian" (Eq. 3), "dot_product" (Eq. 4),
    # "concatenation" (Eq. 5).
    node.PAIRWISE = "embedded_gaussian"
    # The inner channels are d = C / REDUCTION.
    node.REDUCTION = 2
    # 2x2 max pooling: "input" (of x, before phi and g), "embedding" (after phi and g), "none".
    node.SUBSAMPLE = "input"
    # Divide the logits of the two Gaussian forms by sqrt(d).
    node.SCALE = True
    # The norm after W_z: "BN", "SyncBN", "naiveSyncBN", "GN", "FrozenBN", or "" for none. In several
    # processes naiveSyncBN needs a region in each: not for a keypoint head.
    node.NORM = "BN"
    cfg.MODEL.NON_LOCAL = node


def get_cfg() -> CfgNode:
    """Detectron2's default config with `MODEL.NON_LOCAL`."""
    cfg = get_detectron2_cfg()
    add_non_local_config(cfg)
    return cfg


def non_local_node(cfg: CfgNode) -> CfgNode:
    """The node `MODEL.NON_LOCAL` of a config.

    Raises:
        UserError: (a ValueError) if the config lacks it.
    """
    if "NON_LOCAL" not in cfg.MODEL:
        raise UserError(
            "MODEL.NON_LOCAL must be in the config, and is not. "
            "Start from nl_detectron.get_cfg(), or call nl_detectron.add_non_local_config(cfg)."
        )
    return cfg.MODEL.NON_LOCAL


def block_arguments(cfg: CfgNode) -> dict[str, object]:
    """The keyword arguments of `NonLocalBlock` that the config decides."""
    node = non_local_node(cfg)
    return {
        "pairwise": node.PAIRWISE,
        "reduction": node.REDUCTION,
        "subsample": node.SUBSAMPLE,
        "scale": node.SCALE,
        "norm": node.NORM,
    }


@contextmanager
def reported_as_config_keys() -> Iterator[None]:
    """Within it a refused argument is reported under its key, `pairwise` as MODEL.NON_LOCAL.PAIRWISE."""
    try:
        yield
    except ArgumentError as error:
        key = "KEYPOINT_HEAD_EVERY" if error.name == "every" else error.name.upper()
        raise error.renamed(f"MODEL.NON_LOCAL.{key}") from None


def baseline_of(cfg: CfgNode) -> CfgNode:
    """A copy of a config with Detectron2's own builders for ours: the same model without blocks, or without
    the residual block that the control has instead."""
    cfg = cfg.clone()
    cfg.defrost()
    if cfg.MODEL.BACKBONE.NAME in (*BACKBONE_BUILDERS, DEEPER_BACKBONE):
        cfg.MODEL.BACKBONE.NAME = re.sub("^build_(nl|deeper)_", "build_", cfg.MODEL.BACKBONE.NAME)
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD:
        cfg.MODEL.ROI_KEYPOINT_HEAD.NAME = KEYPOINT_HEAD.removeprefix("NonLocal")
    return cfg


def check_placement_is_used(cfg: CfgNode, given: Iterable[str] = ()) -> None:
    """Refuse a config that says something of blocks and names no builder that places them.

    Args:
        given: keys that the user gave explicitly, and that may have their default value.

    Raises:
        ArgumentError: such a run would be called "+NL" and have no block in it.
    """
    default, node = get_cfg().MODEL.NON_LOCAL, non_local_node(cfg)
    in_backbone = not _is_detectron2s(BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME)
    in_head = not _is_detectron2s(ROI_KEYPOINT_HEAD_REGISTRY, cfg.MODEL.ROI_KEYPOINT_HEAD.NAME)
    if cfg.MODEL.ROI_KEYPOINT_HEAD.NAME == KEYPOINT_HEAD and not cfg.MODEL.KEYPOINT_ON:
        raise ArgumentError(
            "MODEL.ROI_KEYPOINT_HEAD.NAME",
            "a head without non-local blocks where there is no keypoint head",
            KEYPOINT_HEAD,
            "Set MODEL.KEYPOINT_ON to True.",
        )
    for key in default:
        if node[key] == default[key] and f"MODEL.NON_LOCAL.{key}" not in given:
            continue
        if key == "KEYPOINT_HEAD_EVERY" and not in_head:
            _refuse_unused(cfg, key, "MODEL.ROI_KEYPOINT_HEAD.NAME", (KEYPOINT_HEAD,))
        if not in_backbone and (key.lower() in STAGES or not in_head):
            _refuse_unused(cfg, key, "MODEL.BACKBONE.NAME", BACKBONE_BUILDERS)


def _is_detectron2s(registry: Registry, name: str) -> bool:
    """Whether it is a builder of Detectron2's own, or the control's, and so places no block; a user's may."""
    return name == DEEPER_BACKBONE or (
        name in registry and registry.get(name).__module__.startswith("detectron2.")
    )


def _refuse_unused(cfg: CfgNode, key: str, builder: str, builders: tuple[str, ...]) -> None:
    raise ArgumentError(
        f"MODEL.NON_LOCAL.{key}",
        "left alone where nothing reads it",
        cfg.MODEL.NON_LOCAL[key],
        f"Set {builder} to {' or '.join(builders)}.",
    )
