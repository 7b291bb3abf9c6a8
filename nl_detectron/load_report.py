"""What became of the tensors of a model when a checkpoint was loaded: loaded, new as expected, or wrong.

A baseline's checkpoint in a model with non-local blocks has to lack exactly the blocks' tensors; anything
else that is missing is a loss of pretrained weights.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

Shape = tuple[int, ...]

# What an ImageNet model has and a backbone has not: its classifier, and MSRA's stem a bias of zero.
_CLASSIFIER = re.compile(r"(^|\.)((fc\d*|linear)\.(weight|bias)|stem\.conv1\.bias)$")
_COUNTS = {  # a tensor whose size along a dimension is a count of the config: what is counted, and its key
    r"box_predictor(\.\d)?\.cls_score\.weight$": (0, "classes", "MODEL.ROI_HEADS.NUM_CLASSES"),
    r"^head\.cls_score\.weight$": (0, "classes", "MODEL.RETINANET.NUM_CLASSES"),
    r"score_lowres\.weight$": (1, "keypoints", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"),
    r"sem_seg_head\.predictor\.weight$": (0, "classes of stuff", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
}


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a model when a checkpoint was loaded.

    Attributes:
        path: of the checkpoint.
        loaded, total: how many tensors of the model are from it, of how many.
        new_blocks: each non-local block that the checkpoint has not, and its tensors.
        all_blocks: how many blocks the model has.
        heads: what lies outside the ResNet, if the checkpoint is that of a classifier and has a ResNet only.
        missing: all else that the model has and the checkpoint has not.
        unexpected: what the checkpoint has and the model has not, but for a classifier's own.
        shapes: each tensor of another shape, with that of the checkpoint (() where Detectron2 has renamed it)
            and that of the model.
        counts: a sentence for each count of classes or keypoints that differs.
        variants: a sentence for each option of a block that differs from what it was trained with.
    """

    path: str
    loaded: int
    total: int
    new_blocks: Mapping[str, int]
    all_blocks: int
    heads: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shapes: tuple[tuple[str, Shape, Shape], ...]
    counts: tuple[str, ...]
    variants: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong, for a training. New heads are no reason not to train."""
        return not (self.missing or self.unexpected or self.shapes or self.variants)

    def __str__(self) -> str:
        return "\n  ".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"Load report of {self.path}:"
        yield f"loaded: {self.loaded} of the model's {self.total} tensors"
        if self.new_blocks:
            yield "new, as expected: " + _listed([f"{k} ({n} tensors)" for k, n in self.new_blocks.items()])
        if self.all_blocks and len(self.new_blocks) == self.all_blocks:
            baseline = ", so this is its baseline" if self.fits and not self.heads else ""
            yield f"the checkpoint has no non-local tensor{baseline}"
        if self.heads:
            yield f"new, as it has a ResNet only: {_by_module(self.heads)}"
        yield from self.counts
        if self.missing:
            yield f"WRONG, missing in the checkpoint, so new: {_by_module(self.missing)}"
        if self.unexpected:
            yield f"WRONG, unexpected in the checkpoint, so not used: {_by_module(self.unexpected)}"
        if self.shapes:
            differing = [
                f"{key} {list(theirs) or 'another'} for {list(ours)}" for key, theirs, ours in self.shapes
            ]
            yield f"WRONG, of another shape, so new: {_listed(differing)}"
        if self.variants:
            yield f"WRONG, trained as another variant: {_listed(self.variants)}"

    def check_whole(self) -> None:
        """Refuse to evaluate a model that is partly of random weights, or not the one that was trained.

        Raises:
            UserError: naming what is wrong, and the flag that evaluates it all the same.
        """
        if self.fits and not self.heads:
            return
        problems = [*self.counts, *self.variants]
        for what, keys in (
            ("missing", (*self.heads, *self.missing)),
            ("unexpected", self.unexpected),
            ("of another shape", [key for key, _, _ in self.shapes]),
        ):
            if keys:
                problems.append(f"{len(keys)} tensors are {what} ({_by_module(keys, 3)})")
        raise UserError(
            f"MODEL.WEIGHTS must hold all of this model to evaluate it; of {self.path!r}: "
            f"{'; '.join(problems)}. Give its own config, or --allow-mismatch to evaluate it all the same."
        )


def make_report(
    model: nn.Module,
    path: str,
    incompatible: object,
    shapes: Sequence[tuple[str, Shape, Shape]],
    variants: Mapping[str, Mapping[str, object]],
) -> LoadReport:
    """Sort what fvcore calls incompatible.

    Args:
        shapes: the tensors of another shape.
        variants: that of each block in the checkpoint, as far as it says so.
    """
    ours = {key for key in model.state_dict() if not _is_counter(key)}
    differing = {key for key, _, _ in shapes}
    missing = [key for key in incompatible.missing_keys if key in ours - differing]
    loaded = ours - differing - set(missing)
    blocks = {
        name: {key for key in ours if key.startswith(f"{name}.")} for name, _ in non_local_blocks(model)
    }
    new_blocks = {name: len(keys) for name, keys in blocks.items() if keys <= set(missing)}
    missing = [key for key in missing if not any(key in blocks[name] for name in new_blocks)]

    constants = dict(model.named_buffers())  # some files have the anchors, which the config decides
    unexpected = [k for k in incompatible.unexpected_keys if k not in constants and not _is_counter(k)]
    heads: list[str] = []
    if loaded and all(_is_of_resnet(model, key) for key in loaded):
        heads = [key for key in missing if not _is_of_resnet(model, key)]
        unexpected = [key for key in unexpected if not _CLASSIFIER.search(key)]
    return LoadReport(
        path=path,
        loaded=len(loaded),
        total=len(ours),
        new_blocks=new_blocks,
        all_blocks=len(blocks),
        heads=tuple(heads),
        missing=tuple(key for key in missing if key not in heads),
        unexpected=tuple(unexpected),
        shapes=tuple(shapes),
        counts=tuple(dict.fromkeys(_counts(model, shapes))),
        variants=tuple(_other_variants(model, variants)),
    )


def _other_variants(model: nn.Module, variants: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for name, block in non_local_blocks(model):
        theirs = variants.get(name, {})
        for option, ours in block.variant().items():
            if theirs.get(option, ours) != ours:
                yield f"{name} has {option} {theirs[option]!r} in the checkpoint, and {ours!r} in this model"


def _is_counter(key: str) -> bool:
    """Whether a norm counts its batches with it, which no norm of Detectron2 reads."""
    return key.endswith("num_batches_tracked")


def _is_of_resnet(model: nn.Module, key: str) -> bool:
    """Whether a tensor is of a ResNet, or of its last stage, which C4 models have in their heads."""
    resnets = [name for name, module in model.named_modules() if isinstance(module, ResNet)]
    return key.startswith(tuple(f"{name}." if name else "" for name in (*resnets, "roi_heads.res5")))


def _counts(model: nn.Module, shapes: Iterable[tuple[str, Shape, Shape]]) -> Iterator[str]:
    for key, theirs, ours in shapes:
        for pattern, (dimension, what, config_key) in _COUNTS.items():
            if theirs and re.search(pattern, key):
                count, expected = theirs[dimension], ours[dimension]
                if "box_predictor" in key:  # which has the background too
                    count, expected = count - 1, expected - 1
                elif key.startswith("head."):  # of RetinaNet, which has a score an anchor
                    count, expected = count * model.num_classes // expected, model.num_classes
                yield f"the checkpoint has {count} {what}, and this model {expected} ({config_key})"


def _by_module(keys: Iterable[str], most: int = 8) -> str:
    """The modules of the tensors `keys`, each with how many."""
    counts = Counter(key.rpartition(".")[0] or key for key in keys)
    return _listed([f"{module} ({count})" for module, count in counts.items()], most)


def _listed(items: Sequence[str], most: int = 8) -> str:
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
