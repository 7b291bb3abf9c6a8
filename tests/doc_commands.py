"""Commands of the documentation: run, in this process if possible, or checked without running them."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from unittest import mock

from detectron2.config import LazyConfig
from runs import SMALL, registrations_forgotten
from torch.distributed.run import get_args_parser

from nl_detectron.engine import read_config
from nl_detectron_cli.command import main as nl_detectron_command

_ASSIGNMENT = re.compile(r'(?:export )?([A-Za-z_]\w*)=("[^"]*"|\$\(.*?\)|\S*)')
_FOR_SHELL = re.compile(r"&&|\||[<>]+|.*\$\(.*")  # words that only a shell understands
_ELSEWHERE = ("pip", "git", "python3", "main/bin/pip", "sbatch", "scontrol", ".", "source", "set", "cd")
_FOLDERS = ("configs", "examples", "projects", "tests", "tools")


class BadPageError(Exception):
    """What is wrong with a page, or with a command of it."""


def run(text: str, keys: Sequence[str] = (), others: Mapping[str, str] | None = None) -> None:
    """Run lines of bash; those of Python scripts in this process, because imports take seconds.

    Args:
        keys: config keys and values to add to each line of train_net.py.
        others: values of variables that replace those in the lines.

    Raises:
        BadPageError: if one fails.
    """
    for line in _lines(text):
        words = _words(line, others or {})
        if "train_net.py" in words or words[:2] in (["nl-detectron", "train"], ["nl-detectron", "eval"]):
            words += keys
        if any(map(_FOR_SHELL.fullmatch, words)):
            _run_in_shell(line)
        elif words[:1] == ["python"] and words[1].endswith(".py"):
            _run_script(words[1:])
        elif words[:1] == ["nl-detectron"]:
            _run_script(words)
        elif words:
            _run_in_shell(shlex.join(words))


def run_lightly(text: str, light: str) -> None:
    """Check lines of bash, then run them on small images, or other lines: `light` is as in doc_blocks.py.

    Raises:
        BadPageError: if one fails.
    """
    with mock.patch.dict(os.environ):  # its variables get other values
        check(text)
    if light.startswith("python "):
        run(light, SMALL)
    else:
        words = shlex.split(light)
        others = dict(word.split("=", 1) for word in words if _ASSIGNMENT.fullmatch(word))
        run(text, [*SMALL, *(word for word in words if not _ASSIGNMENT.fullmatch(word))], others)


def check(text: str) -> None:
    """Check that everything lines of bash name exists, and takes their flags and keys."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    for line in _lines(text):
        words = _words(line, {})
        for is_operator, command in groupby(words, lambda word: bool(_FOR_SHELL.fullmatch(word))):
            if not is_operator:
                _check_command([*command])


def _lines(text: str) -> Iterator[str]:
    """The commands, a line each, without the shell's comments."""
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def _words(line: str, others: Mapping[str, str]) -> list[str]:
    """The words of a command, its variables replaced by their values. Assignments before it are made."""
    while match := _ASSIGNMENT.match(line):
        name, value = match.groups()
        if not value.startswith("$("):
            os.environ[name] = os.path.expandvars(others.get(name, value.strip('"')))
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
            if words[0] == "nl-detectron":
                nl_detectron_command()
            else:
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
        python = [] if args.no_python else ["python"]
        words = [*python, args.training_script, *args.training_script_args]
    for word in words:
        if word.split("/")[0] in _FOLDERS and not Path(word).exists():
            raise BadPageError(f"{shlex.join(words)}: there is no {word}")
    if words[:1] == ["python"]:
        if words[1].endswith(".py") and not words[1].startswith("../"):
            _check_script(words[1], words[2:])
    elif words[:1] == ["nl-detectron"]:
        _check_script(words[0], words[1:])
    elif words[:1] == ["make"]:
        _run_in_shell(shlex.join([*words, "-n"]))
    elif words[:1] == ["sbatch"]:
        with mock.patch.dict(os.environ):  # its variables are not the page's
            check(Path(words[1]).read_text())
    elif words and words[0] not in _ELSEWHERE:
        raise BadPageError(f"{shlex.join(words)}: {words[0]} is unknown")


def _check_script(script: str, arguments: list[str]) -> None:
    if script != "nl-detectron" and not Path(script).exists():
        raise BadPageError(f"there is no {script}")
    parse = ArgumentParser.parse_args

    def parse_and_stop(parser: ArgumentParser, args: object = None, namespace: object = None) -> None:
        raise _Parsed(parse(parser, args, namespace))

    with mock.patch.object(ArgumentParser, "parse_args", parse_and_stop):
        try:
            _run_script([script, *arguments])
        except _Parsed as parsed:
            (args,) = parsed.args
        else:
            return  # it takes no arguments
    configs = getattr(args, "config_file", None) or []
    for config in [configs] if isinstance(configs, str) else configs:
        is_made_later = config.startswith("output/") or config.isupper()  # CONFIG stands for any file
        if config.endswith(".py"):
            LazyConfig.apply_overrides(LazyConfig.load(config), args.opts)
        elif hasattr(args, "opts") and not is_made_later and not Path(config).is_dir():
            read_config(Namespace(**{**vars(args), "config_file": config, "register_coco": []}))
