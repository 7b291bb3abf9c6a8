"""The load report: which tensors of a model were loaded, which are new as expected, and which are wrong.

A baseline's checkpoint in a model with non-local blocks has to lack exactly the blocks' tensors; anything
else that is missing is a loss of pretrained weights.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import RetinaNet
from detectron2.modeling.backbone.resnet import ResNet
from torch import nn

from nl_detectron.errors import UserError
from nl_detectron.modeling import non_local_blocks

Shape = tuple[int, ...]

# What an ImageNet classifier has and a backbone lacks; MSRA's stem has a bias of zero.
_CLASSIFIER = re.compile(r"(stem\.)?(fc\d*|linear)\.(weight|bias)|stem\.conv1\.bias")
_COUNTS = {  # tensors whose size along a dimension is a count of the config: what is counted, and its key
    r"box_predictor(\.\d)?\.cls_score\.weight$": (0, "classes", "MODEL.ROI_HEADS.NUM_CLASSES"),
    r"^head\.cls_score\.weight$": (0, "classes", "MODEL.RETINANET.NUM_CLASSES"),
    r"score_lowres\.weight$": (1, "keypoints", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"),
    r"sem_seg_head\.predictor\.weight$": (0, "classes of stuff", "MODEL.SEM_SEG_HEAD.NUM_CLASSES"),
}
# What such a count decides the size of, with its biases
_COUNTED = re.compile(
    r"(box_predictor(\.\d)?\.\w+|mask_head\.predictor|cls_score|score_lowres|sem_seg_head\.predictor)\.\w+$"
)


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint has for a model."""

    path: str  # of the checkpoint
    loaded: int  # how many tensors of the model are from it
    total: int  # of how many
    new_blocks: Mapping[str, int]  # the number of tensors of each block that the checkpoint lacks
    all_blocks: int  # how many blocks the model has
    has_blocks: bool  # whether the checkpoint has any block
    statistics: Sequence[str]  # those of FrozenBN, 0 and 1, if the checkpoint, like Caffe2's, has none
    heads: Sequence[str]  # what is outside the ResNet, if the checkpoint is a classifier's
    missing: Sequence[str]  # everything else that the checkpoint lacks
    unexpected: Sequence[str]  # what the model lacks, except for a classifier's own
    shapes: Sequence[tuple[str, Shape, Shape]]  # tensors of another shape: name, checkpoint's, model's
    counts: Sequence[str]  # a sentence for each count of classes or keypoints that differs
    resized: Sequence[str]  # which of `shapes` have another size along one dimension because of that
    variants: Sequence[str]  # a sentence for each option of a block that differs from its training
    origin: str = ""  # a sentence, if it is a ResNet of another library

    @property
    def fits(self) -> bool:
        """Whether nothing is wrong for a training, which may start with new heads."""
        return not (self.missing or self.unexpected or self._wrong_shapes() or self.variants)

    def _wrong_shapes(self) -> list[str]:
        shapes = [shape for shape in self.shapes if shape[0] not in self.resized]
        return [f"{key} {list(theirs)} for {list(ours)}" for key, theirs, ours in shapes]

    def __str__(self) -> str:
        blocks = [f"{name} ({count} tensors)" for name, count in self.new_blocks.items()]
        shapes = self._wrong_shapes()
        baseline = ", so this is its baseline" if self.fits and not (self.heads or self.resized) else ""
        parts = [
            (self.new_blocks, f"new, as expected: {_listed(blocks)}"),
            (self.all_blocks and not self.has_blocks, f"the checkpoint has no non-local tensor{baseline}"),
            (self.origin, self.origin),
            (self.statistics, f"{len(self.statistics)} statistics of FrozenBN are 0 and 1, as it has none"),
            (self.heads, f"new, because it has a ResNet only: {_by_module(self.heads)}"),
            *((True, count) for count in self.counts),
            (self.resized, f"new: other number of classes or keypoints: {_by_module(self.resized)}"),
            (self.missing, f"WRONG, missing in the checkpoint, so new: {_by_module(self.missing)}"),
            (self.unexpected, f"WRONG, unexpected in it, so not used: {_by_module(self.unexpected)}"),
            (shapes, f"WRONG, of another shape, so new: {_listed(shapes)}"),
            (self.variants, f"WRONG, trained as another variant: {_listed(self.variants)}"),
        ]
        lines = [f"Load report of {self.path}:", f"loaded: {self.loaded} of the model's {self.total} tensors"]
        return "\n  ".join([*lines, *(text for is_shown, text in parts if is_shown)])

    def check_complete(self) -> None:
        """Raise a UserError if some weights are random, or the model is not the one that was trained."""
        problems = [*self.counts, *self.variants]
        if self.has_blocks and self.new_blocks:
            problems.append(f"it has blocks, but not {_listed([*self.new_blocks])}")
        for what, keys in (
            ("missing", [*self.heads, *self.missing]),
            ("unexpected", self.unexpected),
            ("of another shape", [key for key, _, _ in self.shapes]),
        ):
            if keys:
                problems.append(f"{len(keys)} tensors are {what} ({_by_module(keys, 3)})")
        if problems:
            listed = "; ".join(problems)
            remedy = "Give the config that it was trained with, or --allow-mismatch to use it anyway."
            raise UserError(
                f"MODEL.WEIGHTS {self.path!r} does not hold all of this model: {listed}. {remedy}"
            )


def make_report(
    model: nn.Module,
    path: str,
    given: Mapping[str, Shape],
    variants: Mapping[str, Mapping[str, object]],
    by_ends: bool = False,
    origin: str = "",
) -> LoadReport:
    """Compare a model with the checkpoint that was loaded into it.

    Args:
        given: the tensors of the checkpoint, under Detectron2's names.
        variants: those of the blocks in the checkpoint, if it records them.
        by_ends: whether names are matched by their ends, so that what does not fit keeps its short name.
        origin: what the report says of where the checkpoint comes from.
    """
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items() if not _is_counter(key)}
    names = _names(ours, given, by_ends)
    shapes = [(key, given[name], ours[key]) for key, name in names.items() if given[name] != ours[key]]
    missing = [key for key in ours if key not in names]
    tensors = {
        block: [key for key in ours if key.startswith(f"{block}.")] for block, _ in non_local_blocks(model)
    }
    new_blocks = {block: len(keys) for block, keys in tensors.items() if set(keys) <= set(missing)}
    missing = [key for key in missing if not key.startswith(tuple(f"{block}." for block in new_blocks))]
    constants = dict(model.named_buffers())  # some files have the anchors, which the config decides
    known = {*names.values(), *constants}
    unexpected = [name for name in given if name not in known and not _is_counter(name)]
    counts = [*dict.fromkeys(_other_counts(model, shapes))]
    heads, statistics = [], []
    if by_ends and not any("running_" in name for name in given):
        statistics = [key for key in missing if _is_frozen_statistic(model, key)]
    if names and _is_classifier(model, names, unexpected):
        heads, unexpected = [key for key in missing if not _is_in_resnet(model, key)], []
    return LoadReport(
        path=path,
        loaded=len(names) - len(shapes),
        total=len(ours),
        new_blocks=new_blocks,
        all_blocks=len(tensors),
        has_blocks=any(".non_local_" in f".{name}" for name in given),
        statistics=statistics,
        heads=heads,
        missing=[key for key in missing if key not in {*heads, *statistics}],
        unexpected=unexpected,
        shapes=shapes,
        counts=counts,
        resized=[key for key, theirs, ours in shapes if counts and _is_counted(key, theirs, ours)],
        variants=[*_other_variants(model, variants)],
        origin=origin,
    )


def _names(ours: Mapping[str, Shape], given: Mapping[str, Shape], by_ends: bool) -> dict[str, str]:
    """What the checkpoint calls the tensors of the model that it has."""
    names = {key: key for key in ours if key in given}
    if by_ends:  # a tensor of another shape has kept its own name
        others = [name for name in given if name not in ours]
        for key in (key for key in ours if key not in given):
            for name in (name for name in others if key.endswith(f".{name}")):
                names[key] = name
    return names


def _is_classifier(model: nn.Module, names: Iterable[str], unexpected: Iterable[str]) -> bool:
    """Whether a checkpoint has tensors of a ResNet, perhaps those of its classifier, and no others."""
    is_resnet = all(_is_in_resnet(model, key) for key in names)
    return is_resnet and all(_CLASSIFIER.fullmatch(name) for name in unexpected)


def _is_counter(key: str) -> bool:
    """Whether a norm counts its batches with it; no norm of Detectron2 reads that."""
    return key.endswith("num_batches_tracked")


def _is_frozen_statistic(model: nn.Module, key: str) -> bool:
    module, _, name = key.rpartition(".")
    return "running_" in name and isinstance(model.get_submodule(module), FrozenBatchNorm2d)


def _is_in_resnet(model: nn.Module, key: str) -> bool:
    """Whether a tensor is of a ResNet, or of its last stage, which C4 models have in their heads."""
    resnets = [name for name, module in model.named_modules() if isinstance(module, ResNet)]
    return key.startswith(tuple(f"{name}." if name else "" for name in (*resnets, "roi_heads.res5")))


def _other_variants(model: nn.Module, variants: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    for name, block in non_local_blocks(model):
        for option, ours in block.variant().items():
            theirs = variants.get(name, {}).get(option, ours)
            if theirs != ours:
                yield f"{name} has {option} {theirs!r} in the checkpoint, and {ours!r} in this model"


def _other_counts(model: nn.Module, shapes: Sequence[tuple[str, Shape, Shape]]) -> Iterator[str]:
    sizes = {key: theirs for key, theirs, _ in shapes}
    for key, theirs, ours in shapes:
        for dimension, what, config_key in (_COUNTS[p] for p in _COUNTS if re.search(p, key)):
            count, expected = theirs[dimension], ours[dimension]
            if "box_predictor" in key:  # which counts the background too
                count, expected = count - 1, expected - 1
            elif isinstance(model, RetinaNet):  # which has a score for each anchor
                anchors = model.head.bbox_pred.out_channels // 4
                count //= sizes.get("head.bbox_pred.weight", (4 * anchors,))[0] // 4
                expected //= anchors
            if count != expected:
                yield f"the checkpoint has {count} {what}, and this model {expected} ({config_key})"


def _is_counted(key: str, theirs: Shape, ours: Shape) -> bool:
    """Whether a number of classes or keypoints explains another shape."""
    differing = sum(their != our for their, our in zip(theirs, ours, strict=False))
    return len(theirs) == len(ours) and differing == 1 and bool(_COUNTED.search(key))


def _by_module(keys: Iterable[str], most: int = 8) -> str:
    """The modules of the tensors `keys`, each with how many."""
    counts = Counter(key.rpartition(".")[0] or key for key in keys)
    return _listed([f"{module} ({count})" for module, count in counts.items()], most)


def _listed(items: Sequence[str], most: int = 8) -> str:
    more = f", and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
