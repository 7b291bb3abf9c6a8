"""The fenced blocks of the documentation: what they are, and how tests/test_docs.py runs them.

They run as they stand, page by page from top to bottom, in a folder that looks like the checkout; a ```text
fence that follows is what the block before prints, with "..." for anything. Comments right before a fence,
which readers do not see, say what is special about it:

    <!-- light: CONFIG=small.yaml SOLVER.MAX_ITER 2 -->  small images, these keys at the end of each line of
                                  train_net.py, and this value for the variable CONFIG of the block
    <!-- light: python ... -->    the lines to run instead; those of the block are checked
    <!-- not run: reason -->      its lines are checked: scripts, flags, config files, keys and make's targets
    <!-- needs COCO -->           skipped where COCO 2017 is not
    <!-- file: my_script.py -->   written into the folder, for a block that follows
    <!-- continues -->            Python that goes on where the block of Python before ended
"""

import contextlib
import doctest
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from unittest import mock

from runs import ROOT, SMALL, registrations_forgotten
from torch.distributed.run import get_args_parser

from nl_detectron.engine import read_config

LANGUAGES = ("bash", "python", "text", "yaml", "bibtex")
MARKS = ("light", "not run", "needs COCO", "file", "continues")
_COMMENT = re.compile(r"^<!-- ([\w ]+)(?:: ((?:(?!-->).)*))? -->\n", re.MULTILINE | re.DOTALL)
_FENCE = re.compile(rf"((?:{_COMMENT.pattern})*)^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNMENT = re.compile(r"(?:export )?([A-Za-z_]\w*)=(\$\(.*?\)|\S*)")
_FOR_SHELL = re.compile(r"&&|\||[<>]+|.*\$\(.*")  # words that only a shell can make sense of
_ELSEWHERE = ("pip", "git", "python3", "main/bin/pip", "sbatch", "scontrol", ".", "source", "set", "cd")
_ANYTHING_GOES = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class BadPageError(Exception):
    """What is wrong with a page, or with a command of it."""


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
        return f"{self.page.relative_to(ROOT) if ROOT in self.page.parents else self.page.name}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page.

    Raises:
        BadPageError: for a fence without a language, or a comment that is none of MARKS or before no fence.
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
        if language not in LANGUAGES:
            raise BadPageError(f"{blocks[-1]}: {language!r} must be one of {', '.join(LANGUAGES)}")
        if unknown := set(marks) - set(MARKS):
            raise BadPageError(f"{blocks[-1]}: {unknown} must be one of {', '.join(MARKS)}")
    if len(re.findall(r"^\s*(?:```|~~~)", text, re.MULTILINE)) != 2 * len(found):
        raise BadPageError(f"{page.name}: a fence is indented, of tildes, or not closed")
    if sum(key in MARKS for key, _ in _COMMENT.findall(text)) != sum(len(block.marks) for block in blocks):
        raise BadPageError(f"{page.name}: a comment for a block is not right before a fence")
    return blocks


class Reader:
    """Reads a page from top to bottom, and does what it says.

    Args:
        folder: where; the files of the checkout are linked there.
        datasets: DETECTRON2_DATASETS.
    """

    def __init__(self, page: Path, folder: Path, datasets: Path) -> None:
        self._blocks, self._folder, self._names = blocks_of(page), folder, {}
        binaries = Path(sys.executable).parent
        self._environment = {
            "DETECTRON2_DATASETS": str(datasets),
            "OMP_NUM_THREADS": "1",
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        for path in ROOT.iterdir():
            if not path.name.startswith(".") and path.name not in ("output", "build"):
                (folder / path.name).symlink_to(path)

    def read_to(self, block: Block, has_coco: bool) -> None:
        """Run a block, after those before it, which may have been run already.

        Raises:
            BadPageError, or what the block raises.
        """
        while self._blocks and self._blocks[0].line <= block.line:
            following = self._blocks.pop(0)
            if has_coco or "needs COCO" not in following.marks:
                self._run(following)

    def _run(self, block: Block) -> None:
        printed = _Tee()
        with (
            contextlib.chdir(self._folder),
            mock.patch.dict(os.environ, self._environment),
            contextlib.redirect_stdout(printed),
        ):
            self._execute(block)
            self._environment = dict(os.environ)  # with the variables of the page
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
            exec(compile("\n" * block.line + block.text, str(block), "exec"), self._names)
        elif block.language == "bash" and "not run" in block.marks:
            check(block.text)
        elif block.language == "bash" and light.startswith("python "):
            check(block.text)
            run(light, SMALL)
        elif block.language == "bash" and light:
            words = shlex.split(light)
            others = dict(word.split("=", 1) for word in words if _ASSIGNMENT.fullmatch(word))
            run(block.text, [*SMALL, *(word for word in words if not _ASSIGNMENT.fullmatch(word))], others)
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


def run(text: str, keys: Sequence[str] = (), others: Mapping[str, str] | None = None) -> None:
    """Run lines of bash; those of Python scripts in this process, as imports take seconds.

    Args:
        keys: of the config, with their values, for each line of train_net.py.
        others: values of variables in the place of those that the lines give them.

    Raises:
        BadPageError: if one fails.
    """
    for line in _lines(text):
        words = _words(line, others or {})
        if "train_net.py" in words:
            words += keys
        if any(map(_FOR_SHELL.fullmatch, words)):
            _run_in_shell(line)
        elif words[:1] == ["python"] and words[1].endswith(".py"):
            _run_script(words[1:])
        elif words:
            _run_in_shell(shlex.join(words))


def check(text: str) -> None:
    """Whether lines of bash could be run: what they name is there, and takes their flags and keys."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for line in _lines(text):
        words = _words(line, {})
        for is_operator, command in groupby(words, lambda word: bool(_FOR_SHELL.fullmatch(word))):
            if not is_operator:
                _check_command([*command])


def _lines(text: str) -> Iterator[str]:
    """The commands, a line each; the shell's own comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _words(line: str, others: Mapping[str, str]) -> list[str]:
    """The words of a command, its variables replaced by their values. Assignments before it are made."""
    while match := _ASSIGNMENT.match(line):
        name, value = match.groups()
        if not value.startswith("$("):
            os.environ[name] = os.path.expandvars(others.get(name, value))
        line = line[match.end() :].lstrip()
    return shlex.split(os.path.expandvars(line), comments=True)


def _run_in_shell(line: str) -> None:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=300, check=False)
    print(done.stdout)
    if done.returncode:
        raise BadPageError(f"{line}: exit code {done.returncode}\n{done.stdout}{done.stderr}")


def _run_script(words: list[str]) -> None:
    with mock.patch.object(sys, "argv", words), registrations_forgotten():
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as stopped:
            if stopped.code:
                raise BadPageError(f"{shlex.join(words)}: {stopped.code}") from None


class _Parsed(Exception):  # noqa: N818
    """Ends a script once it knows its arguments."""


def _check_command(words: list[str]) -> None:
    if words[:1] == ["srun"]:
        words = words[1:]
    if words[:1] == ["torchrun"]:
        args, others = get_args_parser().parse_known_args(words[1:])
        if others:
            raise BadPageError(f"{shlex.join(words)}: torchrun has no {others}")
        words = ["python", args.training_script, *args.training_script_args]
    for word in words:
        if word.split("/")[0] in ("configs", "examples", "tests", "tools") and not Path(word).exists():
            raise BadPageError(f"{shlex.join(words)}: there is no {word}")
    match words:
        case ["python", script, *arguments] if script.endswith(".py") and not script.startswith("../"):
            _check_script(script, arguments)
        case ["make", *_]:
            _run_in_shell(shlex.join([*words, "-n"]))
        case ["sbatch", file]:
            with mock.patch.dict(os.environ):  # its variables are not the page's
                check(Path(file).read_text())
        case [program, *_] if program not in (*_ELSEWHERE, "python"):
            raise BadPageError(f"{shlex.join(words)}: {program} is unknown")


def _check_script(script: str, arguments: list[str]) -> None:
    parse = ArgumentParser.parse_args

    def parse_and_stop(parser: ArgumentParser, args: object = None, namespace: object = None) -> None:
        raise _Parsed(parse(parser, args, namespace))

    with mock.patch.object(ArgumentParser, "parse_args", parse_and_stop):
        try:
            _run_script([script, *arguments])
        except _Parsed as parsed:
            (args,) = parsed.args
    configs = getattr(args, "config_file", None) or []
    for config in [configs] if isinstance(configs, str) else configs:
        if hasattr(args, "opts") and not config.startswith("output/") and not Path(config).is_dir():
            read_config(Namespace(**{**vars(args), "config_file": config, "register_coco": []}))
