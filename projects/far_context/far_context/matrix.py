"""The matrix: what is trained on the far and near pictures, and with which seeds.

All arms of a group have the same data and schedule and, for one seed, the same batches and the same initial
weights in everything that they share. What an arm adds starts as the identity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from nl_detectron.errors import UserError

PROJECT = Path(__file__).resolve().parents[1]
SEEDS = (1, 2, 3)
_NL = "MODEL.NON_LOCAL"


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
        path: "mask/..." or "keypoint/...": its name on the command line and in the file system.
        name: its name in the tables.
        config: its file in the project's configs/.
        keys: config keys and their values.
        start: the arm whose trained weights of the same seed it starts from; None for random weights.
        seeds: with which it is trained.
        kind: of its pictures, one of `pictures.KINDS`.
    """

    path: str
    name: str
    config: str
    keys: tuple[str, ...] = ()
    start: "Arm | None" = None
    seeds: tuple[int, ...] = SEEDS
    kind: str = "one"

    @property
    def task(self) -> str:
        return self.path.split("/")[0]

    @property
    def config_file(self) -> str:
        return str(PROJECT / "configs" / self.config)


@dataclass(frozen=True)
class Training:
    """An arm with one seed."""

    arm: Arm
    seed: int

    @property
    def start(self) -> "Training | None":
        """The training whose weights this one starts from."""
        return Training(self.arm.start, self.seed) if self.arm.start else None

    def __str__(self) -> str:
        return f"{self.arm.path} with SEED {self.seed}"


def _mask(path: str, name: str, *keys: str) -> Arm:
    return Arm(f"mask/{path}", name, "mask_rcnn_R_50_FPN_nl_far.yaml", keys)


def _keypoint(path: str, name: str, *keys: str, config: str = "nl_head_") -> Arm:
    # From random weights, keypoint arms learn late which side is left, or not at all.
    return Arm(f"keypoint/{path}", name, f"keypoint_rcnn_R_50_FPN_{config}far.yaml", keys, BASELINE)


def _changed(path: str, name: str, pairwise: str, change: str) -> Arm:
    """Of `controls.CHANGED`."""
    return _mask(path, name, f"{_NL}.PAIRWISE", pairwise, *_backbone(change))


def _as_drawn(path: str, name: str, *keys: str, change: str = "as_drawn") -> Arm:
    """Concatenation whose first weights are not centred."""
    arm = _changed(f"concatenation_{path}", f"concatenation, as drawn{name}", "concatenation", change)
    return replace(arm, keys=(*arm.keys, *keys))


def _backbone(name: str) -> tuple[str, str]:
    """Of `controls`."""
    return "MODEL.BACKBONE.NAME", f"build_{name}_resnet_fpn_backbone"


def _instead(block: str, name: str) -> Arm:
    """Of `controls.ADDED`, in the place of the non-local block."""
    return Arm(f"mask/{block}", name, BASELINE.config, _backbone(block))


def _tuned(path: str, name: str, *keys: str, config: str = "nl_far.yaml") -> Arm:
    """From the trained baseline, for a third of its steps."""
    steps = ("SOLVER.MAX_ITER", "400", "SOLVER.STEPS", "(300,)")
    return Arm(f"mask/tuned_{path}", name, f"mask_rcnn_R_50_FPN_{config}", (*keys, *steps), BASELINE)


def _added(arm: Arm) -> Arm:
    """Its block added to the trained baseline."""
    name = arm.name.removeprefix("+1 NL, ")
    return _tuned(arm.path.removeprefix("mask/"), f"+1 NL added, {name}", *arm.keys)


def _on(kind: str, arm: Arm) -> Arm:
    """On pictures of another kind."""
    keys = (
        *("DATASETS.TRAIN", f"('shapes_{kind}_near_train', 'shapes_{kind}_far_train')"),
        *("DATASETS.TEST", f"('shapes_{kind}_near_val', 'shapes_{kind}_far_val')"),
    )
    return replace(arm, path=arm.path.replace("/", f"/{kind}_"), keys=(*arm.keys, *keys), kind=kind)


def _ends(path: str, name: str, *keys: str, config: str = "", seeds: tuple[int, ...] = SEEDS[:1]) -> Arm:
    file = f"keypoint_rcnn_R_50_{config}ends.yaml"
    return Arm(f"keypoint/ends_{path}", name, file, keys, seeds=seeds, kind="ends")


def _tuned_ends(arm: Arm) -> Arm:
    """From the trained baseline, for as many steps."""
    path = arm.path.replace("ends_", "ends_tuned_")
    name = arm.name.replace(" in head", " added to head")
    return replace(arm, path=path, name=name, start=ENDS[0], seeds=SEEDS)


BASELINE = Arm("mask/baseline", "baseline", "mask_rcnn_R_50_FPN_far.yaml")
MAIN = _mask("nl_res4", "+1 NL in res4")
MAIN_PAIR = (BASELINE, MAIN)
PLACES = (
    *MAIN_PAIR,
    _instead("residual_block", "+1 residual block in res4"),
    _instead("global_context", "+1 GC in res4"),
    _mask("nl_res3", "+1 NL in res3", f"{_NL}.RES3", "[-1]", f"{_NL}.RES4", "[]"),
    _mask("nl_5", "+5 NL in res3 and res4", f"{_NL}.RES3", "[2, 4]", f"{_NL}.RES4", "[2, 4, 6]"),
)
FORMS = (
    *MAIN_PAIR,
    _mask("gaussian", "+1 NL, Gaussian", f"{_NL}.PAIRWISE", "gaussian"),
    _mask("dot_product", "+1 NL, dot product", f"{_NL}.PAIRWISE", "dot_product"),
    _mask("concatenation", "+1 NL, concatenation", f"{_NL}.PAIRWISE", "concatenation"),
)
SETTINGS = (
    MAIN,
    _mask("no_scale", "no scale", f"{_NL}.SCALE", "False"),
    _mask("gn", "GN after W_z", f"{_NL}.NORM", "GN"),
    _mask("no_norm", "no norm after W_z", f"{_NL}.NORM", ""),
    _mask("pooled_after", "pooled after phi and g", f"{_NL}.SUBSAMPLE", "embedding"),
    _mask("not_pooled", "not pooled", f"{_NL}.SUBSAMPLE", "none"),
)
KEYPOINT = (
    _keypoint("baseline", "baseline", config=""),
    _keypoint("nl_head", "+4 NL in head"),
    _keypoint("nl_head_res4", "+4 NL in head, +1 in res4", config="nl_head_backbone_"),
    _keypoint("nl_head_gn", "+4 NL in head, GN after W_z", f"{_NL}.NORM", "GN"),
    _keypoint("nl_head_no_norm", "+4 NL in head, no norm after W_z", f"{_NL}.NORM", ""),
    _keypoint("nl_head_no_scale", "+4 NL in head, no scale", f"{_NL}.SCALE", "False"),
    _keypoint("nl_head_not_pooled", "+4 NL in head, not pooled", f"{_NL}.SUBSAMPLE", "none"),
    _keypoint("nl_head_1", "+1 NL at the end of the head", f"{_NL}.KEYPOINT_HEAD_EVERY", "8"),
)
WHY_CONCATENATION = (
    _as_drawn("as_drawn", ""),
    FORMS[4],
    _as_drawn("normed", ", of normed x", change="as_drawn_normed"),
    _as_drawn("no_decay", ", no weight decay", "SOLVER.WEIGHT_DECAY", "0.0"),
    _as_drawn("half_rate", ", half the learning rate", "SOLVER.BASE_LR", "0.01"),
)
TUNED = (
    _tuned("baseline", "baseline", config="far.yaml"),
    _tuned("nl_res4", "+1 NL added, embedded Gaussian"),
    *map(_added, (*FORMS[2:], WHY_CONCATENATION[0])),
)
WHY_GAUSSIAN = (
    TUNED[2],
    _added(_changed("gaussian_over_channels", "Gaussian, logits x . x / C", "gaussian", "over_channels")),
    _added(_changed("gaussian_normed", "Gaussian of normed x", "gaussian", "normed")),
    _added(_changed("gaussian_others", "Gaussian, not itself", "gaussian", "others")),
)
WHY_DOT_PRODUCT = (
    TUNED[3],
    replace(
        TUNED[3],
        path="mask/tuned_dot_product_longer",
        name=f"{TUNED[3].name}, 3 times the steps",
        keys=(*FORMS[3].keys, "SOLVER.MAX_ITER", "1200", "SOLVER.STEPS", "(900,)"),
    ),
)
GLOBAL_CONTEXT = PLACES[3]
OWN = tuple(_on("own", arm) for arm in (BASELINE, GLOBAL_CONTEXT, MAIN))
_STARTED = ("MODEL.ROI_KEYPOINT_HEAD.NAME", "StartedKeypointHead")
ENDS = (
    _ends("baseline", "baseline", seeds=SEEDS),
    _ends("nl_head", "+2 NL in head", config="nl_head_"),
    _ends("nl_head_started", "+2 NL in head, scale 1 at first", *_STARTED, config="nl_head_"),
    _ends("deeper_head", "+2 convolutions in head", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[64, 64, 64, 64]"),
)
TUNED_ENDS = tuple(map(_tuned_ends, ENDS))
LONGER = replace(
    BASELINE,
    path="mask/baseline_longer",
    name="baseline, 4 times the steps",
    keys=("SOLVER.MAX_ITER", "4800", "SOLVER.STEPS", "(3600,)"),
    seeds=(1,),
)
# The arms of a table; the first one is the reference of the others.
GROUPS = {
    "main": MAIN_PAIR,
    "forms": FORMS,
    "places": PLACES,
    "settings": SETTINGS,
    "keypoint": KEYPOINT,
    "gaussian": WHY_GAUSSIAN,
    "concatenation": WHY_CONCATENATION,
    "dot_product": WHY_DOT_PRODUCT,
    "tuned": TUNED,
    "own": OWN,
    "ends": ENDS,
    "tuned_ends": TUNED_ENDS,
    "longer": (BASELINE, LONGER),
}
# Trained in this order: all arms of a batch with one seed, before the next seed.
_BATCHES = (
    MAIN_PAIR,
    TUNED,
    (*FORMS[2:], GLOBAL_CONTEXT),
    OWN,
    ENDS,
    TUNED_ENDS,
    (LONGER,),
    (WHY_CONCATENATION[0], *WHY_CONCATENATION[2:]),
    WHY_DOT_PRODUCT[1:],
    WHY_GAUSSIAN[1:],
    KEYPOINT[:3],
    PLACES[2:3] + PLACES[4:],
    SETTINGS[1:],
    KEYPOINT[3:],
)
ARMS = tuple(arm for batch in _BATCHES for arm in batch)
ALL = tuple(Training(arm, seed) for arm in ARMS for seed in arm.seeds)


def trainings(patterns: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Training]:
    """The trainings asked for, in the order of the matrix.

    Args:
        patterns: of the arms' paths, with the shell's *, ? and []; without any, all arms.
        seeds: without any, all seeds.

    Raises:
        UserError: for a pattern that matches no arm, a seed that the matrix lacks, or no training.
    """
    for pattern in patterns:
        if not any(fnmatchcase(arm.path, pattern) for arm in ARMS):
            known = ", ".join(arm.path for arm in ARMS)
            raise UserError(f"--arm {pattern!r} matches no arm of the matrix. Its arms are {known}.")
    if unknown := set(seeds) - set(SEEDS):
        raise UserError(f"--seed {min(unknown)} is not in the matrix. Its seeds are {SEEDS}.")
    asked = [arm for arm in ARMS if any(fnmatchcase(arm.path, pattern) for pattern in patterns or ["*"])]
    found = [
        Training(arm, seed)
        for batch in _BATCHES
        for seed in SEEDS
        for arm in batch
        if arm in asked and seed in arm.seeds and seed in (seeds or SEEDS)
    ]
    if not found:
        raise UserError(f"The matrix has {', '.join(patterns)} with other seeds than {sorted({*seeds})}.")
    return found


def with_starts(asked: Sequence[Training]) -> list[Training]:
    """The trainings asked for, each after the one that it starts from."""
    both = [each for training in asked for each in (training.start, training) if each]
    return list(dict.fromkeys(both))
