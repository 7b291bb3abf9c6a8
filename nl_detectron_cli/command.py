"""The command `nl-detectron`, which `pip install` makes: the programs of the scripts under one name."""

import argparse
import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {  # the module of each, the flags that it adds, and what it does
    "train": ("train_net", [], "train a model (train_net.py)"),
    "eval": ("train_net", ["--eval-only"], "evaluate a model (train_net.py --eval-only)"),
    "demo": ("demo", [], "draw what a model detects in images and videos, or write it as JSON"),
    "attention": ("visualize_attention", [], "see what positions of an image attend to"),
    "export": ("export", [], "export a model to ONNX or TorchScript"),
    "analyze": ("analyze", [], "count parameters and multiply-adds of a config, and what its blocks add"),
    "results": ("results", [], "the table of finished trainings, each beside its baseline"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (sys.argv's without it)."""
    words = sys.argv[1:] if argv is None else [*argv]
    parser = _parser()
    if words[:1] in ([], ["-h"], ["--help"]):
        parser.print_help()
        return
    command = words[0]
    if command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, n=1)
        remedy = f"Did you mean {near[0]}?" if near else f"There are {', '.join(COMMANDS)}."
        parser.error(f"{command!r} is not a command. {remedy}")
    module, flags, _ = COMMANDS[command]
    sys.argv = [f"nl-detectron {command}", *flags, *words[1:]]  # usage lines and examples show it
    import_module(f"nl_detectron_cli.{module}").main()


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:<11}{text}" for name, (_, _, text) in COMMANDS.items())
    return argparse.ArgumentParser(
        prog="nl-detectron",
        usage="%(prog)s COMMAND ...",
        description="Non-local blocks for Detectron2.",
        epilog=f"commands:\n{lines}\n\nnl-detectron COMMAND -h shows the flags of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
