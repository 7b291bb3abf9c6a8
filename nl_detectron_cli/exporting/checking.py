"""Comparing what an exported file computes with what eager PyTorch computes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nl_detectron.errors import UserError
from nl_detectron.files import atomic_write

# Of the largest value. Rounding to float32 in another order gives 1e-7 to 1e-5, through 50 to 150 layers.
TOLERANCE = 1e-4
# The share of detections that must be the same. Rounding changes single ones: which box suppresses which,
# and where a heat map is largest, may hang on two values that are as good as equal.
SAME = 0.95
_REPORT = "The file is not kept. Please report this with the config."
_TINY = torch.finfo().tiny

Detections = dict[str, Tensor]  # by field, R detections each: pred_boxes (R, 4), scores (R,), ...


@contextmanager
def checked_file(output: Path) -> Iterator[Path]:
    """A temporary file to export into and to check, which becomes `output` if nothing is raised."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as unfinished:
        yield unfinished
    print(f"written: {output}, {output.stat().st_size / 1e6:.1f} MB", flush=True)


def check_tensors(found: Sequence[Tensor], expected: Sequence[Tensor], title: str) -> None:
    """Print the largest difference as a fraction of the largest value; reject one above TOLERANCE."""
    pairs = [(ours.double(), eager.double()) for ours, eager in zip(found, expected, strict=True)]
    shares = [(ours - eager).abs().max() / eager.abs().max().clamp(min=_TINY) for ours, eager in pairs]
    largest = torch.stack(shares).max().item()  # nan if one is
    print(f"  {title}: largest difference {largest:.1e}", flush=True)
    if not largest <= TOLERANCE:
        raise UserError(
            f"The exported file differs from eager PyTorch by {largest:.1e} of the largest value. {_REPORT}"
        )


def check_detections(found: Sequence[Detections], expected: Sequence[Detections]) -> None:
    """Print for each image how many detections are the same to TOLERANCE, and the largest difference of
    these as a fraction of the largest value; reject fewer than SAME of them."""
    for ours, eager in zip(found, expected, strict=True):
        count, total, same, largest = len(ours["scores"]), len(eager["scores"]), 0, 0.0
        if count and total and ours.keys() == eager.keys():
            # (R, R'): the nearest counterpart counts, as rounding may swap detections of equal scores
            distances = torch.cdist(_table(eager, eager), _table(ours, eager), p=torch.inf).amin(1)
            small = distances[distances <= TOLERANCE]
            same, largest = len(small), small.max().item() if len(small) else 0.0
        print(f"  {count} detections, eager {total}; the same: {same}, to {largest:.1e}", flush=True)
        if same < SAME * max(count, total):
            raise UserError(f"The exported file has {same} of eager PyTorch's {total} detections. {_REPORT}")
    if not any(len(eager["scores"]) for eager in expected):
        print("Nothing is detected, so nothing was compared. Give another --input.", flush=True)


def _table(fields: Detections, expected: Detections) -> Tensor:
    """(R, K): all fields of R detections, each as a fraction of its largest expected value."""
    columns = []
    for name, value in expected.items():
        pairs = [(fields[name], value)]
        if name == "pred_keypoints":
            # (R, K, 3): x and y in pixels, and scores without a bound, which would hide differences of those
            pairs = zip(fields[name].split([2, 1], -1), value.split([2, 1], -1), strict=True)
        columns += [ours.double() / eager.double().abs().max().clamp(min=_TINY) for ours, eager in pairs]
    return torch.cat([column.reshape(len(fields["scores"]), -1) for column in columns], 1)
