"""Atomic writing of files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"  # the prefix of a file whose writing is not finished, or was cut off


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which is flushed to the disk and replaces `path` at the end, or what a
    link leads to. If writing fails, `path` stays as it was.

    What is neither a file nor a folder, like /dev/stdout, is itself what is written to.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = path.resolve()
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        yield unfinished
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
