"""Files that are there whole, or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"  # how the name begins of what is being written, or was when the machine failed


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The file to write in the place of `path`, which it becomes, on the disk, once it is complete.

    If writing fails, what `path` was before stays.
    """
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
