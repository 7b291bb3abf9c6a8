"""Names of classes and keypoints: those of the config, the checkpoint or the data, in this order.

A training stores those of its data in its config and its checkpoints, for tools that do not have the data.
"""

import logging
from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog

from .checkpoint import saved_metadata
from .errors import UserError

logger = logging.getLogger(__name__)

_KEYS = {"thing_classes": "CLASS_NAMES", "keypoint_names": "KEYPOINT_NAMES"}  # by Detectron2's metadata
_RULES = ("keypoint_flip_map", "keypoint_connection_rules")  # of metadata; they name keypoints


def check_names(cfg: CfgNode) -> None:
    """Raise a UserError for MODEL.CLASS_NAMES or KEYPOINT_NAMES that are not text, or not one for each."""
    for field, (key, count) in _counts(cfg).items():
        ours, names = f"MODEL.{_KEYS[field]}", cfg.MODEL[_KEYS[field]]
        if field == "keypoint_names" and not cfg.MODEL.KEYPOINT_ON:
            continue
        if not all(isinstance(name, str) for name in names):
            raise UserError(f"{ours} must be a list of names in quotes; got {names}.")
        if names and len(names) != count:
            remedy = f"Correct one of them, or set {ours} to [] for the names of the data."
            raise UserError(f"{ours} has {len(names)} names, but {key} is {count}. {remedy}")


def complete_metadata(cfg: CfgNode) -> Metadata:
    """The metadata of the first test set, with a name for every class, which Detectron2's visualizers need.

    Names, and the rules of keypoints, are those of the config, of MODEL.WEIGHTS or of the test set, whichever
    has as many as the model first; else numbers.

    Raises:
        UserError: as `check_names`.
    """
    check_names(cfg)
    given = {field: cfg.MODEL[key] for field, key in _KEYS.items()}
    saved = saved_metadata(cfg.MODEL.WEIGHTS)
    of_data = _metadata_of(cfg.DATASETS.TEST)
    counts = {field: count for field, (_, count) in _counts(cfg).items()}
    counts["stuff_classes"] = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    metadata = dict(of_data)
    for field, count in counts.items():
        found = [_names(source, field, count) for source in (given, saved, of_data)]
        metadata[field] = next(filter(None, found), [str(k) for k in range(count)])
    for source in (of_data, saved):  # the checkpoint's replace the data's
        if _has_keypoints(source, metadata["keypoint_names"]):
            metadata |= {rule: source[rule] for rule in _RULES if rule in source}
    return Metadata(**metadata)


def store_names(cfg: CfgNode) -> None:
    """Fill MODEL.CLASS_NAMES and KEYPOINT_NAMES from the training data, where they are empty."""
    for field, names in _training_names(cfg).items():
        cfg.MODEL[_KEYS[field]] = names


def training_metadata(cfg: CfgNode) -> dict[str, list]:
    """What a checkpoint stores, in plain lists: the names of the config or else of the first training set,
    and the rules of its keypoints. What neither has is left out.
    """
    of_data = _metadata_of(cfg.DATASETS.TRAIN)
    stored: dict[str, list] = _training_names(cfg)
    for field, names in stored.items():
        if of_data.get(field) and list(of_data[field]) != names:
            key, name = f"MODEL.{_KEYS[field]}", cfg.DATASETS.TRAIN[0]
            logger.warning("%s has other names than %s. Set it to [] to take those.", key, name)
    if _has_keypoints(of_data, stored.get("keypoint_names")):
        flips, bones = (of_data.get(rule, ()) for rule in _RULES)
        stored["keypoint_flip_map"] = [[str(left), str(right)] for left, right in flips]
        stored["keypoint_connection_rules"] = [[str(a), str(b), [int(c) for c in rgb]] for a, b, rgb in bones]
    return stored


def _training_names(cfg: CfgNode) -> dict[str, list[str]]:
    of_data = _metadata_of(cfg.DATASETS.TRAIN)
    found = {}
    for field, (_, count) in _counts(cfg).items():
        names = cfg.MODEL[_KEYS[field]] or _names(of_data, field, count)
        if names and (field != "keypoint_names" or cfg.MODEL.KEYPOINT_ON):
            found[field] = [str(name) for name in names]
    return found


def _metadata_of(datasets: Sequence[str]) -> dict[str, object]:
    """That of the first data set."""
    return MetadataCatalog.get(datasets[0]).as_dict() if datasets else {}


def _counts(cfg: CfgNode) -> dict[str, tuple[str, int]]:
    """The config key that counts a field of metadata, and its value."""
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    keypoints = ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS)
    return {
        "thing_classes": (f"MODEL.{node}.NUM_CLASSES", cfg.MODEL[node].NUM_CLASSES),
        "keypoint_names": keypoints,
    }


def _names(source: Mapping[str, object], field: str, count: int) -> Sequence[str]:
    names = source.get(field)
    return names if isinstance(names, (list, tuple)) and len(names) == count else ()


def _has_keypoints(source: Mapping[str, object], names: Sequence[str] | None) -> bool:
    return bool(names) and list(source.get("keypoint_names") or ()) == list(names)
