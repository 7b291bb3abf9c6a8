"""The config node `MODEL.NON_LOCAL`: its keys, and how they reach the blocks; and keys of the trainer."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.config import get_cfg as get_detectron2_cfg
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.roi_heads import ROI_KEYPOINT_HEAD_REGISTRY
from fvcore.common.registry import Registry

from nl_detectron.errors import ArgumentError, UserError

STAGES = ("res2", "res3", "res4", "res5")
KEYPOINT_HEAD = "NonLocalKRCNNConvDeconvUpsampleHead"
BASELINES = {  # of our builders and head, Detectron2's without blocks
    "build_nl_resnet_backbone": "build_resnet_backbone",
    "build_nl_resnet_fpn_backbone": "build_resnet_fpn_backbone",
    "build_nl_retinanet_resnet_fpn_backbone": "build_retinanet_resnet_fpn_backbone",
    KEYPOINT_HEAD: "KRCNNConvDeconvUpsampleHead",
}
_BLOCK_KEYS = {  # which key gives which argument of `NonLocalBlock`
    "pairwise": "PAIRWISE",
    "reduction": "REDUCTION",
    "subsample": "SUBSAMPLE",
    "scale": "SCALE",
    "norm": "NORM",
}
_KEYS = _BLOCK_KEYS | {stage: stage.upper() for stage in STAGES} | {"every": "KEYPOINT_HEAD_EVERY"}


def add_non_local_config(cfg: CfgNode) -> None:
    """Add the keys with their defaults, in place. A MODEL.NON_LOCAL that is there already stays as it is."""
    _add_training_keys(cfg)
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
    # A block goes after every so many convolutions (each with its ReLU) of the keypoint head.
    # Read by MODEL.ROI_KEYPOINT_HEAD.NAME "NonLocalKRCNNConvDeconvUpsampleHead".
    node.KEYPOINT_HEAD_EVERY = 2
    # f(x_i, x_j): "gaussian" (Eq. 2), "embedded_gaussian" (Eq. 3), "dot_product" (Eq. 4),
    # "concatenation" (Eq. 5).
    node.PAIRWISE = "embedded_gaussian"  # also the default of `NonLocalBlock`
    # The inner channels are d = C / REDUCTION.
    node.REDUCTION = 2
    # 2x2 max pooling: "input" (of x, before phi and g), "embedding" (after phi and g), "none".
    node.SUBSAMPLE = "input"
    # Divide the logits of the two Gaussian forms by sqrt(d).
    node.SCALE = True
    # The norm after W_z: "BN", "SyncBN", "naiveSyncBN", "GN", "FrozenBN", ..., or "" for none. With several
    # processes, naiveSyncBN needs a region in each of them: don't use it in a keypoint head.
    node.NORM = "BN"
    cfg.MODEL.NON_LOCAL = node


def _add_training_keys(cfg: CfgNode) -> None:
    """Keys that nl_detectron's trainer reads; Predictor and the tools read the first three, too."""
    # The names of the classes and of the keypoints, one for each. A training takes them from its data where
    # they are []; tools take them from the checkpoint, or else from the first test set.
    cfg.MODEL.setdefault("CLASS_NAMES", [])
    cfg.MODEL.setdefault("KEYPOINT_NAMES", [])
    # What the model computes in, in training and evaluation: "bfloat16", "float16" (which needs
    # SOLVER.AMP.ENABLED and a GPU), or "" for float32, or for Detectron2's float16 in training where
    # SOLVER.AMP.ENABLED.
    cfg.SOLVER.AMP.setdefault("PRECISION", "")
    # A step is the mean gradient of so many batches, of IMS_PER_BATCH / ACCUMULATE images each: 8 on one GPU
    # trains as 8 GPUs do. Not with REFERENCE_WORLD_SIZE (--auto-scale), which changes the schedule.
    cfg.SOLVER.setdefault("ACCUMULATE", 1)
    # How many of the checkpoints of every CHECKPOINT_PERIOD to keep, the newest ones; 0: all.
    cfg.SOLVER.setdefault("CHECKPOINTS_KEPT", 0)
    # Save the weights of the best evaluation as model_best.pth, by this metric: "segm/AP", with several test
    # sets "SET/segm/AP"; "": don't.
    cfg.TEST.setdefault("BEST_METRIC", "")
    # At every EVAL_PERIOD, compute the losses on up to so many images of each test set, too; 0: don't.
    cfg.TEST.setdefault("LOSS_IMAGES", 500)


def get_cfg() -> CfgNode:
    """Detectron2's default config with `MODEL.NON_LOCAL` and the keys of the trainer."""
    cfg = get_detectron2_cfg()
    add_non_local_config(cfg)
    return cfg


def non_local_node(cfg: CfgNode) -> CfgNode:
    """The node `MODEL.NON_LOCAL` of a config; a UserError if the config lacks it."""
    if "NON_LOCAL" not in cfg.MODEL:
        remedy = "Start from nl_detectron.get_cfg(), or call nl_detectron.add_non_local_config(cfg)."
        raise UserError(f"The config has no MODEL.NON_LOCAL. {remedy}")
    return cfg.MODEL.NON_LOCAL


def block_arguments(cfg: CfgNode) -> dict[str, object]:
    """The keyword arguments of `NonLocalBlock` that the config decides."""
    node = non_local_node(cfg)
    return {name: node[key] for name, key in _BLOCK_KEYS.items()}


@contextmanager
def reported_as_config_keys() -> Iterator[None]:
    """Report a refused argument under its key: `pairwise` as MODEL.NON_LOCAL.PAIRWISE."""
    try:
        yield
    except ArgumentError as error:
        if error.name not in _KEYS:
            raise
        raise error.renamed(f"MODEL.NON_LOCAL.{_KEYS[error.name]}") from None


def baseline_of(cfg: CfgNode) -> CfgNode:
    """A copy of a config with Detectron2's own builders in place of ours: the same model without blocks."""
    cfg = cfg.clone()
    cfg.defrost()
    for node in (cfg.MODEL.BACKBONE, cfg.MODEL.ROI_KEYPOINT_HEAD):
        node.NAME = BASELINES.get(node.NAME, node.NAME)
    return cfg


def check_non_local_keys(cfg: CfgNode, given: Iterable[str] = ()) -> None:
    """Refuse a config that sets keys of MODEL.NON_LOCAL but names no builder that reads them.

    Args:
        given: keys that the user gave explicitly; they count even at their default values.

    Raises:
        UserError: naming the key and the builder. Such a run would be called "+NL" and have no block in it.
    """
    node, default, given = non_local_node(cfg), get_cfg().MODEL.NON_LOCAL, set(given)
    backbone, head = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_KEYPOINT_HEAD.NAME
    if head == KEYPOINT_HEAD and not cfg.MODEL.KEYPOINT_ON:
        raise UserError(f"{KEYPOINT_HEAD} is set, but the model has no keypoint head. Set MODEL.KEYPOINT_ON.")
    backbone_reads = not _is_from_detectron2(BACKBONE_REGISTRY, backbone)
    head_reads = not _is_from_detectron2(ROI_KEYPOINT_HEAD_REGISTRY, head)
    for key in default:
        if node[key] == default[key] and f"MODEL.NON_LOCAL.{key}" not in given:
            continue
        if key == "KEYPOINT_HEAD_EVERY" and not head_reads:
            what = f"MODEL.NON_LOCAL.{key} is set, but keypoint head {head!r} ignores it"
            raise UserError(f"{what}. Use {KEYPOINT_HEAD}.")
        if not backbone_reads and (key.lower() in STAGES or not head_reads):
            remedies = [ours for ours, theirs in BASELINES.items() if theirs == backbone]
            what = f"MODEL.NON_LOCAL.{key} is set, but backbone {backbone!r} ignores it"
            raise UserError(f"{what}. Use {remedies[0] if remedies else 'a build_nl_ backbone'}.")


def _is_from_detectron2(registry: Registry, name: str) -> bool:
    """Whether it is a builder of Detectron2's own, which places no block; a user's may."""
    return name in registry and registry.get(name).__module__.startswith("detectron2.")
