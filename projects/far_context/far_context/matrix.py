"""The matrix: what is trained on the far and near pictures, and with which seeds.

All arms of a group have the same data and schedule and, with one seed, the same batches and the same initial
weights in all that they share: the loader and the builders see to that. What is added begins as the identity.
Those of the keypoint arms are the trained baseline's of masks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from detectron2.config import CfgNode

from nl_detectron import model_zoo
from nl_detectron.config import DEEPER_BACKBONE
from nl_detectron.errors import ArgumentError

SEEDS = (1, 2, 3)
NL = "MODEL.NON_LOCAL"
_MASK, _MASK_NL = "mask_rcnn_R_50_FPN_far.yaml", "mask_rcnn_R_50_FPN_nl_far.yaml"
_KEYPOINT = "keypoint_rcnn_R_50_FPN_{}far.yaml"
_HEAD = _KEYPOINT.format("nl_head_")


@dataclass(frozen=True)
class Arm:
    """What is trained.

    Attributes:
        path: the task and the arm, as they are called on the command line and in the file system.
        name: as it stands in the tables.
        config: in configs/quick_schedules.
        keys: of the config, and their values.
        start: whose trained weights it begins with, of the same seed; None: with random ones.
    """

    path: str
    name: str
    config: str
    keys: tuple[str, ...] = ()
    start: "Arm | None" = None

    @property
    def task(self) -> str:
        """ "mask" or "keypoint"."""
        return self.path.split("/")[0]

    @property
    def config_file(self) -> str:
        return model_zoo.get_config_file(f"quick_schedules/{self.config}")

    def cfg(self) -> CfgNode:
        cfg = model_zoo.get_config(f"quick_schedules/{self.config}")
        cfg.merge_from_list([*self.keys])
        return cfg


@dataclass(frozen=True)
class Training:
    """An arm with one seed."""

    arm: Arm
    seed: int

    @property
    def start(self) -> "Training | None":
        """Whose weights it begins with."""
        return Training(self.arm.start, self.seed) if self.arm.start else None

    def __str__(self) -> str:
        return f"{self.arm.path} with SEED {self.seed}"


BASELINE = Arm("mask/baseline", "baseline", _MASK)
MAIN = Arm("mask/nl_res4", "+1 NL in res4", _MASK_NL)
PLACES = (
    BASELINE,
    MAIN,
    Arm("mask/residual_res4", "+1 residual block in res4", _MASK, ("MODEL.BACKBONE.NAME", DEEPER_BACKBONE)),
    Arm("mask/nl_res3", "+1 NL in res3", _MASK_NL, (f"{NL}.RES3", "[-1]", f"{NL}.RES4", "[]")),
    Arm("mask/nl_5", "+5 NL in res3 and res4", _MASK_NL, (f"{NL}.RES3", "[2, 4]", f"{NL}.RES4", "[2, 4, 6]")),
)
SETTINGS = (
    MAIN,
    Arm("mask/no_scale", "no scale", _MASK_NL, (f"{NL}.SCALE", "False")),
    Arm("mask/gn", "GN after W_z", _MASK_NL, (f"{NL}.NORM", "GN")),
    Arm("mask/no_norm", "no norm after W_z", _MASK_NL, (f"{NL}.NORM", "")),
    Arm("mask/pooled_after", "pooled after phi and g", _MASK_NL, (f"{NL}.SUBSAMPLE", "embedding")),
    Arm("mask/not_pooled", "not pooled", _MASK_NL, (f"{NL}.SUBSAMPLE", "none")),
    Arm("mask/gaussian", "Gaussian", _MASK_NL, (f"{NL}.PAIRWISE", "gaussian")),
    Arm("mask/dot_product", "dot product", _MASK_NL, (f"{NL}.PAIRWISE", "dot_product")),
    Arm("mask/concatenation", "concatenation", _MASK_NL, (f"{NL}.PAIRWISE", "concatenation")),
)
_KEYPOINT_ARMS = (
    Arm("keypoint/baseline", "baseline", _KEYPOINT.format("")),
    Arm("keypoint/nl_head", "+4 NL in head", _HEAD),
    Arm("keypoint/nl_head_res4", "+4 NL in head, +1 in res4", _KEYPOINT.format("nl_head_backbone_")),
    # Whether the head's blocks do better in another way, one change at a time.
    Arm("keypoint/nl_head_gn", "+4 NL in head, GN after W_z", _HEAD, (f"{NL}.NORM", "GN")),
    Arm("keypoint/nl_head_no_norm", "+4 NL in head, no norm after W_z", _HEAD, (f"{NL}.NORM", "")),
    Arm("keypoint/nl_head_no_scale", "+4 NL in head, no scale", _HEAD, (f"{NL}.SCALE", "False")),
    Arm("keypoint/nl_head_not_pooled", "+4 NL in head, not pooled", _HEAD, (f"{NL}.SUBSAMPLE", "none")),
    Arm("keypoint/nl_head_1", "+1 NL at the end of the head", _HEAD, (f"{NL}.KEYPOINT_HEAD_EVERY", "8")),
)
# From random weights they learn late which side is left, or not at all.
KEYPOINT = tuple(replace(arm, start=BASELINE) for arm in _KEYPOINT_ARMS)
GROUPS = {  # compared with the first arm of each
    "places": PLACES,
    "settings": SETTINGS,
    "keypoint": KEYPOINT,
}
# What is trained together: all of it with one seed, before the next seed.
_BATCHES = (PLACES[:2], KEYPOINT[:3], PLACES[2:] + SETTINGS[1:] + KEYPOINT[3:])
ARMS = tuple(arm for batch in _BATCHES for arm in batch)


def trainings(patterns: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[Training]:
    """Those asked for, in the order in which they are trained.

    Args:
        patterns: of the arms' paths, with the shell's *, ? and []; all arms if there are none.
        seeds: all of the matrix if there are none.

    Raises:
        ArgumentError: for a pattern that no arm matches, or a seed that the matrix has not.
    """
    for pattern in patterns:
        if not any(fnmatchcase(arm.path, pattern) for arm in ARMS):
            known = ", ".join(arm.path for arm in ARMS)
            raise ArgumentError("--arm", "of the matrix", pattern, f"It has {known}.")
    for seed in seeds:
        if seed not in SEEDS:
            raise ArgumentError("--seed", f"one of {', '.join(map(str, SEEDS))}", seed, "See --list.")
    return [
        training
        for training in _all()
        if any(fnmatchcase(training.arm.path, pattern) for pattern in patterns or ("*",))
        and training.seed in (seeds or SEEDS)
    ]


def with_starts(asked: Sequence[Training]) -> list[Training]:
    """Those asked for, each after the one that it begins with."""
    both = (each for training in asked for each in (training.start, training) if each)
    return [*dict.fromkeys(both)]


def _all() -> Iterator[Training]:
    for batch in _BATCHES:
        for seed in SEEDS:
            for arm in batch:
                yield Training(arm, seed)
