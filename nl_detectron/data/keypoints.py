"""What Detectron2 needs of a data set's keypoints: names, what a flip swaps, bones, and sigmas of OKS.

The category with keypoints has COCO's `keypoints` (their names) and `skeleton`, and may have `flip_pairs`
(names that a flip swaps) and `sigmas`. Missing fields are inferred, with a notice.
"""

import math
import re
from collections.abc import Callable, Sequence

from detectron2.data.datasets.builtin_meta import COCO_PERSON_KEYPOINT_NAMES
from pycocotools.cocoeval import Params

from .findings import Entry, Findings

_SIDES = {  # how the left one of a pair is called, and what stands for it in the right one
    **{r"left": "right", r"Left": "Right", r"LEFT": "RIGHT"},
    **{r"^l(?=[_\-. ])": "r", r"(?<=[_\-. ])l$": "r", r"^L(?=[A-Z_\-. ])": "R", r"(?<=[_\-. ])L$": "R"},
}


def keypoint_metadata(
    categories: Sequence[Entry], objects: Sequence[object], find: Findings
) -> dict[str, object]:
    """The metadata of a data set with keypoints; {} for one without."""
    points = [each.get("keypoints") for each in objects if isinstance(each, dict)]
    counts = [len(each) for each in points if isinstance(each, list) and each]
    with_names = [each for each in categories if each.get("keypoints")]
    if not counts and not (with_names and not objects):
        return {}
    category = with_names[0] if with_names else {"keypoints": _inferred_names(max(counts) // 3, find)}
    names = category["keypoints"]
    if any(other["keypoints"] != names for other in with_names):
        remedy = "Detectron2 has one list for a model: give all categories with keypoints the same."
        find.refuse("Categories with other keypoints than the first", remedy, category["name"])
    if not _are(names, lambda name: isinstance(name, str)) or len(set(names)) < len(names):
        find.refuse("keypoints that are not names, each once", "Correct the category.", names)
        return {}
    return {
        "keypoint_names": names,
        "keypoint_flip_map": _flip_map(names, category.get("flip_pairs"), find),
        "keypoint_connection_rules": _bones(names, category.get("skeleton") or [], find),
        "keypoint_oks_sigmas": _sigmas(names, category.get("sigmas"), find),
    }


def _are(values: object, is_right: Callable[[object], bool]) -> bool:
    return isinstance(values, list) and all(map(is_right, values))


def _inferred_names(count: int, find: Findings) -> list[str]:
    is_person = count == len(COCO_PERSON_KEYPOINT_NAMES)
    names = list(COCO_PERSON_KEYPOINT_NAMES) if is_person else [f"keypoint_{k}" for k in range(1, count + 1)]
    find.notices.append(f"the categories do not name their keypoints; assuming {', '.join(names)}")
    return names


def _flip_map(names: list[str], pairs: object, find: Findings) -> list[tuple[str, str]]:
    """What a horizontal flip swaps; by the names left_eye and right_eye, l_eye and r_eye, LEye and REye."""
    if pairs is None:
        mirrored = [(left, re.sub(pattern, side, left)) for left in names for pattern, side in _SIDES.items()]
        pairs = list(map(list, dict.fromkeys(p for p in mirrored if p[0] != p[1] and p[1] in names)))
        swaps = ", ".join(f"{left} with {right}" for left, right in pairs) or "nothing"
        find.notices.append(f"no flip_pairs; by the names, a horizontal flip swaps {swaps}")
    if not _are(pairs, lambda pair: _are(pair, names.__contains__) and len(pair) == 2) or (
        len({name for pair in pairs for name in pair}) < 2 * len(pairs)
    ):
        remedy = 'Give flip_pairs such as [["left_eye", "right_eye"]], each name once; [] for none.'
        find.refuse("flip_pairs that are not pairs of keypoint names", remedy, pairs)
        return []
    return [(left, right) for left, right in pairs]


def _bones(names: list[str], skeleton: object, find: Findings) -> list[tuple[str, str, tuple[int, int, int]]]:
    """COCO counts from 1. A skeleton with a 0 counts from 0."""
    if not _are(skeleton, lambda bone: _are(bone, lambda k: type(k) is int) and len(bone) == 2):
        find.refuse("skeleton that is not pairs of numbers", "Correct the category.", skeleton)
        return []
    if any(0 in bone for bone in skeleton):
        skeleton[:] = [[a + 1, b + 1] for a, b in skeleton]
        find.mend("skeleton that counts from 0: now from 1")
    if not {end for bone in skeleton for end in bone} <= set(range(1, len(names) + 1)):
        remedy = f"Number the {len(names)} keypoints from 1."
        find.refuse("skeleton with numbers that no keypoint has", remedy, skeleton)
        return []
    return [(names[a - 1], names[b - 1], (255, 128, 0)) for a, b in skeleton]


def _sigmas(names: list[str], sigmas: object, find: Findings) -> list[float]:
    if sigmas is not None:
        is_positive = lambda value: isinstance(value, (int, float)) and 0 < value < math.inf  # noqa: E731
        if not _are(sigmas, is_positive) or len(sigmas) != len(names):
            find.refuse("sigmas that do not fit", f"Give {len(names)} positive numbers.", sigmas)
        return sigmas
    cocos = dict(zip(COCO_PERSON_KEYPOINT_NAMES, Params("keypoints").kpt_oks_sigmas.tolist(), strict=True))
    mean = sum(cocos.values()) / len(cocos)
    others = ", ".join(name for name in names if name not in cocos) or "none"
    what = f"no sigmas; keypoint AP takes COCO's by name, and their mean, {mean:.3f}, for {others}"
    find.notices.append(what)
    return [cocos.get(name, mean) for name in names]
