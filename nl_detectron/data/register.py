"""`--register-coco NAME JSON IMAGE_DIR`: a user's own data in COCO's format, by name.

The categories of the JSON decide the classes. One with keypoints has COCO's fields `keypoints` (their names)
and `skeleton`, and may have `flip_pairs` (pairs of names that a horizontal flip swaps) and `sigmas` (of OKS).
What is not there is inferred, with a notice.
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

from nl_detectron.errors import UserError, reported_as_user_errors

logger = logging.getLogger(__name__)

Category = Annotation = Mapping[str, object]

_FIELDS = {  # what Detectron2 reads, and of what type
    "images": {"id": (int, str), "file_name": str, "height": (int, float), "width": (int, float)},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": (int, str), "category_id": int, "bbox": list},
}
_FIELDS_OF_EVALUATION = ("area", "iscrowd")  # what COCO's evaluation reads besides
_SIDES = (  # how the left one of a pair is called, and what stands for it in the right one
    (r"left", "right"),
    (r"Left", "Right"),
    (r"LEFT", "RIGHT"),
    (r"^l(?=[_\-. ])", "r"),
    (r"(?<=[_\-. ])l$", "r"),
    (r"^L(?=[A-Z_\-. ])", "R"),
    (r"(?<=[_\-. ])L$", "R"),
)


def add_register_coco(parser: argparse.ArgumentParser) -> None:
    """Give a command line the flag; `register_from` reads it."""
    parser.add_argument(
        "--register-coco",
        nargs=3,
        action="append",
        default=[],
        metavar=("NAME", "JSON", "IMAGE_DIR"),
        help="a data set of yours in COCO's format, for DATASETS.TRAIN and DATASETS.TEST; may be repeated",
    )


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
        paths = [taken.get("json_file", ""), taken.get("image_root", "")]
        if list(map(os.path.realpath, paths)) == list(map(os.path.realpath, (json_file, image_dir))):
            return
        raise UserError(f"--register-coco must give a new name; got {name!r}, which is another data set.")
    try:
        with reported_as_user_errors(f"{json_file} is not in COCO's format"):
            metadata = _metadata(name, json_file, image_dir)
    except (UserError, OSError) as error:
        raise UserError(f"--register-coco {name}: {error}") from None
    register_coco_instances(name, metadata, json_file, image_dir)


def _metadata(name: str, json_file: str, image_dir: str) -> dict[str, object]:
    if not Path(image_dir).is_dir():
        raise UserError(f"IMAGE_DIR must be a folder; got {image_dir!r}.")
    categories, annotations = _read(json_file)
    metadata = {"thing_classes": [category["name"] for category in categories]}
    metadata["missing_for_evaluation"] = [
        field
        for field in _FIELDS_OF_EVALUATION
        if not all(isinstance(annotation.get(field), (int, float)) for annotation in annotations)
    ]
    _check_unique("categories", "name", metadata["thing_classes"])
    with_keypoints = [category for category in categories if category.get("keypoints")]
    if with_keypoints or any(annotation.get("keypoints") for annotation in annotations):
        metadata |= _keypoints(name, with_keypoints, annotations)
    return metadata


def _read(json_file: str) -> tuple[list[Category], list[Annotation]]:
    """The categories in the order of their ids, as Detectron2 counts them, and the annotations."""
    try:
        content = json.loads(Path(json_file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"JSON must be a JSON file; got {json_file!r}: {error}") from None
    for key, fields in _FIELDS.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"JSON must have a list of {key}, as COCO has; {json_file} has none.")
        for entry in entries:
            for field, kinds in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kinds):
                    raise UserError(f"JSON must give each of its {key} {field!r}; not so {_short(entry)}.")
        _check_unique(key, "id", [entry["id"] for entry in entries])
    categories, annotations = content["categories"], content["annotations"]
    unknown = {a["category_id"] for a in annotations} - {category["id"] for category in categories}
    if unknown or not categories:
        ids = ", ".join(map(str, sorted(unknown))) or "any"
        raise UserError(f"JSON must have the categories of its annotations; it has none of id {ids}.")
    return sorted(categories, key=lambda category: category["id"]), annotations


def _check_unique(key: str, field: str, values: Sequence[object]) -> None:
    (twice, count), *_ = [*Counter(values).most_common(1), (None, 1)]
    if count > 1:
        raise UserError(
            f"JSON must give each of its {key} another {field!r}; {twice!r} is there {count} times."
        )


def _short(entry: object) -> str:
    text = json.dumps(entry)
    return text if len(text) < 80 else f"{text[:80]}..."


def _keypoints(
    name: str, categories: Sequence[Category], annotations: Sequence[Annotation]
) -> dict[str, object]:
    """The metadata that Detectron2 needs of keypoints, and the sigmas that its evaluator takes."""
    if len({tuple(category["keypoints"]) for category in categories}) > 1:
        raise UserError("all categories with keypoints must have the same ones, and have not.")
    with_them = [annotation for annotation in annotations if annotation.get("keypoints")]
    sizes = {len(annotation["keypoints"]) for annotation in with_them}
    category = categories[0] if categories else {}
    names = list(category.get("keypoints") or _inferred_names(name, max(sizes) // 3))
    if not all(isinstance(keypoint, str) for keypoint in names):
        raise UserError(f"keypoints must be names; got {_short(names)}.")
    _check_unique("keypoints", "name", names)
    if others := sizes - {3 * len(names)}:
        rule = f"3 numbers for each of the {len(names)} keypoints"
        raise UserError(f"annotations must have {rule}; some have {min(others)} numbers.")
    if not all(isinstance(annotation.get("num_keypoints"), int) for annotation in with_them):
        raise UserError(
            "annotations with keypoints must have 'num_keypoints', which COCO's evaluation reads."
        )
    if (pairs := category.get("flip_pairs")) is None:
        pairs = _inferred_pairs(name, names)
    return {
        "keypoint_names": names,
        "keypoint_flip_map": _checked_pairs(names, pairs),
        "keypoint_connection_rules": _rules(names, category.get("skeleton") or ()),
        "keypoint_oks_sigmas": _sigmas(name, names, category.get("sigmas")),
        # Detectron2 takes keypoints of all objects of a data set, or of none.
        "objects_without_keypoints": len(annotations) - len(with_them),
    }


def _rules(names: Sequence[str], skeleton: Sequence[Sequence[int]]) -> list[tuple[str, str, tuple]]:
    """Detectron2's lines between keypoints, of COCO's, which counts from 1."""
    for pair in skeleton:
        if len(pair) != 2 or not all(1 <= number <= len(names) for number in pair):
            raise UserError(f"skeleton must have pairs of numbers from 1 to {len(names)}; got {pair!r}.")
    return [(names[a - 1], names[b - 1], (255, 128, 0)) for a, b in skeleton]


def _inferred_names(name: str, count: int) -> list[str]:
    is_person = count == len(COCO_PERSON_KEYPOINT_NAMES)
    names = list(COCO_PERSON_KEYPOINT_NAMES) if is_person else [f"keypoint_{k}" for k in range(1, count + 1)]
    logger.warning("%s names no keypoints: its %d are taken for %s", name, count, ", ".join(names))
    return names


def _checked_pairs(names: Sequence[str], pairs: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(names):
            raise UserError(f"flip_pairs must be pairs of keypoint names; got {pair!r}.")
    (twice, count), *_ = [*Counter(k for pair in pairs for k in pair).most_common(1), ("", 1)]
    if count > 1:
        raise UserError(f"flip_pairs must have each keypoint in one pair at most; {twice!r} is in {count}.")
    return [tuple(pair) for pair in pairs]


def _inferred_pairs(name: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """What a horizontal flip swaps, by the names: left_eye and right_eye, l_eye and r_eye, LEye and REye."""
    mirrored = [(left, re.sub(pattern, side, left)) for left in names for pattern, side in _SIDES]
    pairs = list(dict.fromkeys((left, right) for left, right in mirrored if left != right and right in names))
    swaps = ", ".join(f"{left} with {right}" for left, right in pairs) or "nothing"
    logger.warning("%s has no flip_pairs: by the names, a horizontal flip swaps %s", name, swaps)
    return pairs


def _sigmas(name: str, names: Sequence[str], sigmas: Sequence[float] | None) -> list[float]:
    if sigmas is not None:
        if len(sigmas) != len(names) or not all(0 < sigma < math.inf for sigma in sigmas):
            rule = f"a positive number for each of the {len(names)} keypoints"
            raise UserError(f"sigmas must be {rule}; got {sigmas!r}.")
        return list(sigmas)
    cocos = dict(zip(COCO_PERSON_KEYPOINT_NAMES, Params("keypoints").kpt_oks_sigmas.tolist(), strict=True))
    mean = sum(cocos.values()) / len(cocos)
    others = [keypoint for keypoint in names if keypoint not in cocos]
    logger.warning(
        "%s has no sigmas: keypoint AP takes COCO's by name%s",
        name,
        f", and their mean, {mean:.3f}, for {', '.join(others)}" if others else "",
    )
    return [cocos.get(keypoint, mean) for keypoint in names]
