"""`--register-coco NAME JSON IMAGE_DIR`: a user's own data in COCO's format, by name.

A category with keypoints has COCO's `keypoints` (their names) and `skeleton`, and may have `flip_pairs`
(names that a flip swaps) and `sigmas` (of OKS). Missing fields are inferred, with a notice.
"""

import argparse
import json
import logging
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES
from pycocotools.cocoeval import Params

from nl_detectron.errors import UserError

logger = logging.getLogger(__name__)

Category = Annotation = Mapping[str, object]

_FIELDS = {  # what Detectron2 reads, and of what type
    "images": {"id": (int, str), "file_name": str, "height": (int, float), "width": (int, float)},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": (int, str), "category_id": int, "bbox": list},
}
_OF_EVALUATION = ("area", "iscrowd")  # what COCO's evaluation reads besides
_SIDES = {  # how the left one of a pair is called, and what stands for it in the right one
    **{r"left": "right", r"Left": "Right", r"LEFT": "RIGHT"},
    **{r"^l(?=[_\-. ])": "r", r"(?<=[_\-. ])l$": "r", r"^L(?=[A-Z_\-. ])": "R", r"(?<=[_\-. ])L$": "R"},
}


def add_register_coco(parser: argparse.ArgumentParser) -> None:
    """Give a command line the flag; `register_from` reads it."""
    text = "a data set of yours in COCO's format, for DATASETS.TRAIN and DATASETS.TEST; may be repeated"
    names = {"nargs": 3, "metavar": ("NAME", "JSON", "IMAGE_DIR")}
    parser.add_argument("--register-coco", action="append", default=[], help=text, **names)


def register_from(args: argparse.Namespace) -> None:
    """Register what `--register-coco` names."""
    for name, json_file, image_dir in args.register_coco:
        register_coco(name, json_file, image_dir)


def register_coco(name: str, json_file: str, image_dir: str) -> None:
    """Register a data set with Detectron2, with its classes and keypoints. The same one twice is no error.

    Raises:
        UserError: for a name that is taken, a file that is not there, or one that is not in COCO's format.
    """
    if name in DatasetCatalog.list():
        taken = MetadataCatalog.get(name)
        theirs = [os.path.realpath(taken.get(key, "")) for key in ("json_file", "image_root")]
        if theirs == [os.path.realpath(json_file), os.path.realpath(image_dir)]:
            return
        raise UserError(f"--register-coco {name}: another data set has this name. Choose a new one.")
    try:
        metadata = _metadata(name, json_file, image_dir)
    except (UserError, OSError) as error:
        raise UserError(f"--register-coco {name}: {error}") from None
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        reason = f"{json_file} is not in COCO's format: {type(error).__name__}: {error}"
        raise UserError(f"--register-coco {name}: {reason}") from error
    register_coco_instances(name, metadata, json_file, image_dir)


def _metadata(name: str, json_file: str, image_dir: str) -> dict[str, object]:
    if not Path(image_dir).is_dir():
        raise UserError(f"IMAGE_DIR {image_dir!r} is not a folder.")
    categories, annotations = _read(json_file)
    classes = [category["name"] for category in categories]
    _check_unique("categories", "name", classes)
    missing = {f for f in _OF_EVALUATION for a in annotations if not isinstance(a.get(f), (int, float))}
    metadata = {"thing_classes": classes, "missing_for_evaluation": sorted(missing)}
    with_keypoints = [category for category in categories if category.get("keypoints")]
    if with_keypoints or any(annotation.get("keypoints") for annotation in annotations):
        metadata |= _keypoints(name, with_keypoints, annotations)
    return metadata


def _read(json_file: str) -> tuple[list[Category], list[Annotation]]:
    """The categories in the order of their ids, as Detectron2 counts them, and the annotations."""
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{json_file} is not a JSON file: {error}") from None
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"{json_file} has no list of {key}, which COCO's format has.")
        for entry in entries:
            for field, kinds in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kinds):
                    text = json.dumps(entry)[:80]
                    raise UserError(f"{key}: an entry lacks {field!r}, or has it in another type: {text}.")
        _check_unique(key, "id", [entry["id"] for entry in entries])
    categories, annotations = content["categories"], content["annotations"]
    unknown = {a["category_id"] for a in annotations} - {category["id"] for category in categories}
    if not categories:
        raise UserError(f"{json_file} has no categories.")
    if unknown:
        ids = ", ".join(map(str, sorted(unknown)))
        raise UserError(f"{json_file} has annotations of unknown categories: {ids}.")
    return sorted(categories, key=lambda category: category["id"]), annotations


def _check_unique(key: str, field: str, values: Sequence[object]) -> None:
    for value, count in Counter(values).most_common(1):
        if count > 1:
            raise UserError(f"{key}: the {field} {value!r} occurs {count} times, but must be unique.")


def _keypoints(
    name: str, categories: Sequence[Category], annotations: Sequence[Annotation]
) -> dict[str, object]:
    """The metadata that Detectron2 needs of keypoints, and the sigmas that its evaluator takes."""
    if len({tuple(category["keypoints"]) for category in categories}) > 1:
        raise UserError("all categories with keypoints must have the same ones.")
    with_them = [annotation for annotation in annotations if annotation.get("keypoints")]
    sizes = {len(annotation["keypoints"]) for annotation in with_them}
    category = categories[0] if categories else {}
    names = list(category.get("keypoints") or _inferred_names(name, max(sizes) // 3))
    if not all(isinstance(keypoint, str) for keypoint in names):
        raise UserError(f"keypoints must be names; got {names}.")
    _check_unique("keypoints", "name", names)
    if others := sizes - {3 * len(names)}:
        rule = f"3 numbers for each of the {len(names)} keypoints"
        raise UserError(f"annotations must have {rule}; some have {min(others)} numbers.")
    if not all(isinstance(annotation.get("num_keypoints"), int) for annotation in with_them):
        raise UserError("annotations with keypoints need 'num_keypoints', which COCO's evaluation reads.")
    pairs, skeleton = category.get("flip_pairs"), category.get("skeleton") or ()
    pairs = _inferred_pairs(name, names) if pairs is None else pairs
    if not all(len(pair) == 2 and set(pair) <= set(names) for pair in pairs):
        raise UserError(f"flip_pairs must be pairs of keypoint names; got {pairs}.")
    _check_unique("keypoints in flip_pairs", "name", [keypoint for pair in pairs for keypoint in pair])
    if not all(len(bone) == 2 and all(1 <= k <= len(names) for k in bone) for bone in skeleton):
        raise UserError(f"skeleton must have pairs of numbers from 1 to {len(names)}; got {skeleton}.")
    return {
        "keypoint_names": names,
        "keypoint_flip_map": [tuple(pair) for pair in pairs],
        "keypoint_connection_rules": [(names[a - 1], names[b - 1], (255, 128, 0)) for a, b in skeleton],
        "keypoint_oks_sigmas": _sigmas(name, names, category.get("sigmas")),
        # Detectron2 takes keypoints of all objects of a data set, or of none.
        "objects_without_keypoints": len(annotations) - len(with_them),
    }


def _inferred_names(name: str, count: int) -> list[str]:
    is_person = count == len(COCO_PERSON_KEYPOINT_NAMES)
    names = list(COCO_PERSON_KEYPOINT_NAMES) if is_person else [f"keypoint_{k}" for k in range(1, count + 1)]
    logger.warning("%s does not name its keypoints; assuming %s", name, ", ".join(names))
    return names


def _inferred_pairs(name: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """What a horizontal flip swaps, by the names: left_eye and right_eye, l_eye and r_eye, LEye and REye."""
    mirrored = [(left, re.sub(pattern, side, left)) for left in names for pattern, side in _SIDES.items()]
    pairs = list(dict.fromkeys((left, right) for left, right in mirrored if left != right and right in names))
    swaps = ", ".join(f"{left} with {right}" for left, right in pairs) or "nothing"
    logger.warning("%s has no flip_pairs; by the names, a horizontal flip swaps %s", name, swaps)
    return pairs


def _sigmas(name: str, names: Sequence[str], sigmas: Sequence[float] | None) -> list[float]:
    if sigmas is not None:
        if len(sigmas) != len(names) or not all(0 < sigma < math.inf for sigma in sigmas):
            rule = f"a positive number for each of the {len(names)} keypoints"
            raise UserError(f"sigmas must be {rule}; got {sigmas!r}.")
        return list(sigmas)
    cocos = dict(zip(COCO_PERSON_KEYPOINT_NAMES, Params("keypoints").kpt_oks_sigmas.tolist(), strict=True))
    mean = sum(cocos.values()) / len(cocos)
    others = ", ".join(keypoint for keypoint in names if keypoint not in cocos) or "none"
    message = "%s has no sigmas; keypoint AP takes COCO's by name, and their mean, %.3f, for %s"
    logger.warning(message, name, mean, others)
    return [cocos.get(keypoint, mean) for keypoint in names]
