"""A file appears under its name only when it is whole and has passed its check."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from nl_detectron.errors import UserError
from nl_detectron.files import written_whole

# Of the largest value. Rounding to float32 in another order gives 1e-7 to 1e-5, through 50 to 150 layers.
TOLERANCE = 1e-4


def write_checked(output: Path, export: Callable[[Path], None], check: Callable[[Path], float]) -> None:
    """Export into a temporary file, check that, and only then give it its name.

    Args:
        export: writes the file that it is given.
        check: loads that file again and returns its largest difference from eager PyTorch, as a
            fraction of the largest value.

    Raises:
        UserError: if the difference is above TOLERANCE. No file is left then.
    """
    start = time.monotonic()
    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as unfinished:
        export(unfinished)
        difference = check(unfinished)
        if not difference <= TOLERANCE:  # a nan is not
            raise UserError(
                f"{output} must equal eager PyTorch to {TOLERANCE:.0e} of the largest value; it differs by "
                f"{difference:.1e}. It is not written. Please report this with the config."
            )
        size = unfinished.stat().st_size / 1e6
    seconds = time.monotonic() - start
    print(
        f"written: {output}, {size:.1f} MB, {seconds:.0f} s; largest difference {difference:.1e}", flush=True
    )


def difference(actual: Tensor, expected: Tensor) -> float:
    """The largest difference as a fraction of the largest value; inf for another shape, 0 for no values."""
    if actual.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    actual, expected = actual.double(), expected.double()
    return float((actual - expected).abs().max() / expected.abs().max().clamp(min=torch.finfo().tiny))


@contextmanager
def refused(what: str, remedy: str) -> Iterator[None]:
    """Within it, what PyTorch's exporters raise is their refusal of a model: its first cause and a remedy."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__:
            cause = cause.__cause__
        reason, *_ = [*str(cause).strip().splitlines(), ""]
        raise UserError(f"{what}: {type(cause).__name__}: {reason.strip(' .:')}. {remedy}") from error
