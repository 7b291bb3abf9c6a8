"""The fenced blocks of the documentation, and how tests/test_docs.py runs them.

They run page by page, from top to bottom, in a folder that looks like the checkout. A ```text fence right
after a block is what the block prints, with "..." for anything. Comments before a fence say how it is run:

    <!-- light: CONFIG=small.yaml SOLVER.MAX_ITER 2 -->  small images, these config keys for train_net.py, and
                                  this value for the variable CONFIG of the block
    <!-- light: python ... -->    lines to run instead
    <!-- not run: reason -->      only checked: scripts, flags, config files, keys and make's targets,
                                  and Python's syntax
    <!-- needs COCO -->           skipped without COCO 2017
    <!-- package: NAME -->        skipped without this Python package
    <!-- file: my_script.py -->   written into the folder, for a block that follows
    <!-- continues -->            Python that continues the Python block before it
"""

import contextlib
import doctest
import io
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from doc_commands import BadPageError, check, run, run_lightly
from runs import ROOT

LANGUAGES = ("bash", "python", "text", "yaml", "bibtex")
MARKS = ("light", "not run", "needs COCO", "package", "file", "continues")
_COMMENT = re.compile(r"^<!-- ([\w ]+)(?:: ((?:(?!-->).)*))? -->\n", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(rf"((?:{_COMMENT.pattern})*)^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ANYTHING_GOES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass(frozen=True)
class Block:
    """A fenced block. `output` is what it prints, if the page says so."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]
    output: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def missing_package(self) -> str | None:
        """The package that the block needs, if it is not installed."""
        package = self.marks.get("package")
        return package if package and not find_spec(package) else None


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page.

    Raises:
        BadPageError: for an unknown language or comment, or a comment that is not right before a fence.
    """
    text = page.read_text(encoding="utf-8")
    found = list(_FENCE.finditer(text))
    blocks = []
    for match, following in zip(found, [*found[1:], None], strict=False):
        *_, language, body = match.groups()
        marks = {key: value for key, value in _COMMENT.findall(match[1])}
        output = following and following[4] == "text" and not text[match.end() : following.start()].strip()
        line = text[: match.start(4)].count("\n") + 1
        blocks.append(Block(page, line, language, body, marks, following[5] if output else None))
        if language not in LANGUAGES or set(marks) - set(MARKS):
            raise BadPageError(f"{blocks[-1]}: unknown language or comment: {language!r}, {marks}")
    if len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) != 2 * len(found):
        raise BadPageError(f"{page.name}: a fence is indented, of tildes, or not closed")
    if sum(key in MARKS for key, _ in _COMMENT.findall(text)) != sum(len(block.marks) for block in blocks):
        raise BadPageError(f"{page.name}: a comment for a block is not right before a fence")
    return blocks


class Reader:
    """Runs or checks a page from top to bottom.

    Args:
        folder: where; the files of the checkout are linked there, and the data sets below datasets/.
        datasets: the folder of the data sets.
    """

    def __init__(self, page: Path, folder: Path, datasets: Path) -> None:
        self._blocks, self._folder, self._names = blocks_of(page), folder, {}
        binaries = Path(sys.executable).parent
        self._environment = {
            "DETECTRON2_DATASETS": "datasets",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        (folder / "datasets").mkdir()
        files = [path for path in (ROOT / "datasets").iterdir() if path.is_file()]
        for path in [*files, *datasets.iterdir()]:
            (folder / "datasets" / path.name).symlink_to(path)
        for path in ROOT.iterdir():
            if path.suffix == ".md":  # a command that changes a page must not change it through a link
                shutil.copy(path, folder)
            elif not path.name.startswith(".") and path.name not in ("output", "build", "datasets"):
                (folder / path.name).symlink_to(path)

    def check(self) -> None:
        """Check all commands without running any.

        Raises:
            BadPageError: if a command names a file, flag or key that does not exist.
        """
        for block in self._blocks:
            with self._inside():
                if "file" in block.marks:
                    Path(block.marks["file"]).write_text(block.text)
                elif block.language == "bash":
                    check(block.text)

    def read_to(self, block: Block, has_coco: bool) -> None:
        """Run a block, after those before it that have not run yet.

        Raises:
            BadPageError: if a command fails, or a block prints something else than the page says.
        """
        while self._blocks and self._blocks[0].line <= block.line:
            following = self._blocks.pop(0)
            if not following.missing_package and (has_coco or "needs COCO" not in following.marks):
                self._run(following)

    @contextlib.contextmanager
    def _inside(self) -> contextlib.AbstractContextManager:
        """Be in the folder, with the variables of the page."""
        before = Path.cwd()
        os.chdir(self._folder)
        try:
            with mock.patch.dict(os.environ, self._environment):
                yield
                self._environment = dict(os.environ)
        finally:
            os.chdir(before)

    def _run(self, block: Block) -> None:
        printed = _Tee()
        with self._inside(), contextlib.redirect_stdout(printed):
            self._execute(block)
        if block.output is None or {"light", "not run", "file"} & set(block.marks):
            return
        if not doctest.OutputChecker().check_output(block.output, printed.getvalue(), _ANYTHING_GOES):
            raise BadPageError(f"{block} prints\n{printed.getvalue()}\nand not\n{block.output}")

    def _execute(self, block: Block) -> None:
        light = block.marks.get("light", "")
        if "file" in block.marks:
            Path(block.marks["file"]).write_text(block.text)
        elif block.language == "python":
            self._names = self._names if "continues" in block.marks else {"__name__": "__main__"}
            code = compile("\n" * block.line + block.text, str(block), "exec")
            if "not run" not in block.marks:
                exec(code, self._names)
        elif block.language == "bash" and "not run" in block.marks:
            check(block.text)
        elif block.language == "bash" and light:
            run_lightly(block.text, light)
        elif block.language == "bash":
            run(block.text)


class _Tee(io.StringIO):
    """Passes on what it holds: Detectron2's loggers keep the stream that they first saw."""

    def __init__(self) -> None:
        super().__init__()
        self._stream = sys.stdout

    def write(self, text: str) -> int:
        self._stream.write(text)
        return super().write(text)
