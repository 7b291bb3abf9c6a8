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
_FLIPS, _BONES = "keypoint_flip_map", "keypoint_connection_rules"  # of metadata; they name keypoints


def check_names(cfg: CfgNode) -> None:
    """Raise a UserError for MODEL.CLASS_NAMES or KEYPOINT_NAMES that are not text, or not one for each."""
    for field, (key, count) in model_counts(cfg).items():
        ours, names = f"MODEL.{_KEYS[field]}", cfg.MODEL[_KEYS[field]]
        if not all(isinstance(name, str) for name in names):
            raise UserError(f"{ours} must be a list of names in quotes; got {names}.")
        if names and len(names) != count:
            remedy = f"Correct one of them, or set {ours} to [] for the names of the data."
            raise UserError(f"{ours} has {len(names)} names, but {key} is {count}. {remedy}")


def complete_metadata(cfg: CfgNode) -> Metadata:
    """The metadata of the first test set, with a name for every class, which Detectron2's visualizers need.

    Names are those of the config, of MODEL.WEIGHTS or of the test set, whichever has as many as the model
    first; else numbers. A UserError as `check_names`.
    """
    check_names(cfg)
    saved, of_data = saved_metadata(cfg.MODEL.WEIGHTS), _metadata_of(cfg.DATASETS.TEST)
    sources = [{field: cfg.MODEL[key] for field, key in _KEYS.items()}, saved, of_data]
    counts = {field: count for field, (_, count) in model_counts(cfg).items()}
    counts["stuff_classes"] = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    metadata = dict(of_data)
    for field, count in counts.items():
        found = [names for source in sources if (names := _names(source, field, count))]
        metadata[field] = found[0] if found else [str(k) for k in range(count)]
    keypoints = list(metadata.get("keypoint_names", ()))
    if keypoints and list(_names(saved, "keypoint_names", len(keypoints))) == keypoints:
        metadata |= {rule: saved[rule] for rule in (_FLIPS, _BONES) if rule in saved}
    return Metadata(**metadata)


def store_names(cfg: CfgNode) -> None:
    """Fill MODEL.CLASS_NAMES and KEYPOINT_NAMES from the training data, where they are empty."""
    for field, (_, count) in model_counts(cfg).items():
        names = _names(_metadata_of(cfg.DATASETS.TRAIN), field, count)
        cfg.MODEL[_KEYS[field]] = list(cfg.MODEL[_KEYS[field]] or map(str, names))


def training_metadata(cfg: CfgNode) -> dict[str, list]:
    """What a checkpoint stores, in plain lists: the names of the config or else of the first training set,
    and the rules of its keypoints. What neither has is left out.
    """
    cfg, of_data = cfg.clone(), _metadata_of(cfg.DATASETS.TRAIN)
    cfg.defrost()
    store_names(cfg)
    stored = {field: names for field in model_counts(cfg) if (names := cfg.MODEL[_KEYS[field]])}
    for field, names in stored.items():
        if of_data.get(field) and list(of_data[field]) != names:
            key, name = f"MODEL.{_KEYS[field]}", cfg.DATASETS.TRAIN[0]
            logger.warning("%s has other names than %s. Set it to [] to take those.", key, name)
    if stored.get("keypoint_names") == list(of_data.get("keypoint_names") or ()):
        stored[_FLIPS] = [[str(a), str(b)] for a, b in of_data.get(_FLIPS, ())]
        stored[_BONES] = [[str(a), str(b), [int(c) for c in rgb]] for a, b, rgb in of_data.get(_BONES, ())]
    return stored


def model_counts(cfg: CfgNode) -> dict[str, tuple[str, int]]:
    """The key that counts a field of metadata, and its value; keypoints only where the model has them."""
    node = "RETINANET" if cfg.MODEL.META_ARCHITECTURE == "RetinaNet" else "ROI_HEADS"
    counts = {"thing_classes": (f"MODEL.{node}.NUM_CLASSES", cfg.MODEL[node].NUM_CLASSES)}
    if cfg.MODEL.KEYPOINT_ON:
        head = cfg.MODEL.ROI_KEYPOINT_HEAD
        counts["keypoint_names"] = ("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", head.NUM_KEYPOINTS)
    return counts


def _metadata_of(datasets: Sequence[str]) -> dict[str, object]:
    """That of the first data set."""
    return MetadataCatalog.get(datasets[0]).as_dict() if datasets else {}


def _names(source: Mapping[str, object], field: str, count: int) -> Sequence[str]:
    names = source.get(field)
    if not isinstance(names, (list, tuple)) or len(names) != count:
        return ()
    return names if all(isinstance(name, str) for name in names) else ()
