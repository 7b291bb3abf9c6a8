#!/usr/bin/env python
"""Move non-local blocks between checkpoints of Detectron2 and of other implementations.

    python tools/convert_weights.py import --layout mmcv --source other.pth --weights stock.pkl \\
        --blocks backbone.layer3.5.non_local_block=backbone.bottom_up.res4.non_local_5 --output new.pth

writes a file for MODEL.WEIGHTS: the blocks under our names and, if given, the rest of --weights.

    python tools/convert_weights.py export --layout mmcv --source model_final.pth --config-file config.yaml \\
        --blocks backbone.bottom_up.res4.non_local_5=backbone.layer3.5.non_local_block --output blocks.pth

writes the blocks alone. docs/variants.md says what the layouts are, and which options they need.
"""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.modeling import build_model
from torch import Tensor

from nl_detectron import NonLocalBlock, get_cfg
from nl_detectron.checkpoint import VARIANTS
from nl_detectron.engine import find_config
from nl_detectron.errors import ArgumentError, UserError, one_line_errors, reported_as_user_errors
from nl_detectron.modeling import non_local_blocks
from nl_detectron.weights import (
    LAYOUTS,
    Layout,
    block_options,
    check_is_new,
    export_block,
    import_block,
    read_checkpoint,
    tensors_in,
    write_checkpoint,
)

OPTIONS = ("pairwise", "scale", "subsample", "dim")
VALUES = {"True": True, "False": False, "1": 1, "2": 2, "3": 3}


def import_blocks(args: argparse.Namespace) -> None:
    """Write blocks of `args.source` under our names, merged into `args.weights`."""
    spec = LAYOUTS[args.layout]
    check_output(args.output, ".pth")
    options = {"dim": 2, **dict(parse_option(text) for text in args.option)}  # a detector's, if not told
    source = tensors_in(read_checkpoint(args.source))
    result = read_weights(args.weights) if args.weights else {"model": {}}
    for theirs, ours in parse_blocks(args.blocks).items():
        with reported_of_block(theirs):
            block = import_block(tensors_of_block(source, theirs, spec), args.layout, **options)
        result["model"] |= {f"{ours}.{name}": tensor for name, tensor in block.state_dict().items()}
        result.setdefault(VARIANTS, {})[ours] = block.variant()
        print(f"{theirs} -> {ours}: {describe(block)}")
    write_checkpoint(args.output, result)


def export_blocks(args: argparse.Namespace) -> None:
    """Write blocks of `args.source` in another layout; their options are those of `args.config_file`."""
    spec = LAYOUTS[args.layout]
    check_output(args.output, ".pkl" if spec.wrapper == "blobs" else ".pth")
    blocks = build_blocks(args.config_file)
    content = read_checkpoint(args.source)
    source, variants = tensors_in(content), content.get(VARIANTS, {})
    tensors: dict[str, Tensor] = {}
    for ours, theirs in parse_blocks(args.blocks).items():
        with reported_of_block(ours):
            block = load_block(blocks, ours, source)
            if variants.get(ours, block.variant()) != block.variant():
                rule = f"of the variant that --source was trained as, {variants[ours]}"
                raise ArgumentError("--config-file", rule, block.variant(), "Give the config of that run.")
            exported = export_block(block, args.layout)
        tensors |= {f"{theirs}{spec.separator}{name}": tensor for name, tensor in exported.items()}
        print(f"{ours} -> {theirs}: {describe(block)}")
    write_checkpoint(args.output, {spec.wrapper: tensors} if spec.wrapper else tensors)


def check_output(path: Path, suffix: str) -> None:
    """Refuse a file that its readers would take for another format, or that exists."""
    if path.suffix != suffix:
        raise ArgumentError("--output", f"a {suffix} file", str(path), "Its readers tell formats by that.")
    if not path.parent.is_dir():
        raise ArgumentError("--output", "in a folder that is there", str(path), "Make the folder first.")
    check_is_new(path)


def parse_option(text: str) -> tuple[str, str | bool | int]:
    """ "scale=False" to ("scale", False)."""
    name, equals, value = text.partition("=")
    if name not in OPTIONS or not equals:
        rule = f"NAME=VALUE with one of the names {', '.join(OPTIONS)}"
        raise ArgumentError("--option", rule, text, "Give it like pairwise=dot_product.")
    return name, VALUES.get(value, value)


def parse_blocks(pairs: Sequence[str]) -> dict[str, str]:
    """Where each block goes, by where it comes from."""
    blocks = dict(pair.partition("=")[::2] for pair in pairs)
    if (
        any("=" in to for to in blocks.values())
        or not all(blocks)
        or not all(blocks.values())
        or len(set(blocks.values())) < len(pairs)
    ):
        rule = "FROM=TO, every block once"
        raise ArgumentError("--blocks", rule, " ".join(pairs), "Give the full names of the blocks.")
    return blocks


def tensors_of_block(source: dict[str, Tensor], block: str, spec: Layout) -> dict[str, Tensor]:
    """The tensors of one block, named relative to it.

    Raises:
        UserError: (a ValueError) if there are none, naming the blocks that there are.
    """
    prefix = block + spec.separator
    tensors = {name.removeprefix(prefix): t for name, t in source.items() if name.startswith(prefix)}
    if not tensors:
        ends = {spec.separator + spec.name("g.weight", pooled=pooled) for pooled in (False, True)}
        found = [name.removesuffix(end) for name in source for end in ends if name.endswith(end)]
        there = f"It has {', '.join(found)}." if found else "It has no block of this layout."
        raise ArgumentError("the block", "in the source", block, there)
    return tensors


def read_weights(path: Path) -> dict[str, Any]:
    """A checkpoint that Detectron2 can load, with all names in Detectron2's way, and nothing but the model.

    Detectron2 would rename our blocks too, if it were left to it to rename Caffe2's files.
    """
    content = read_checkpoint(path)
    tensors = tensors_in(content)
    kept = {key: content[key] for key in ("__author__", "matching_heuristics", VARIANTS) if key in content}
    if path.suffix == ".pkl" and "model" not in content:
        blobs = {name: tensor for name, tensor in tensors.items() if not name.endswith("_momentum")}
        with reported_as_user_errors(f"--weights {path} has no names that Detectron2 knows"):
            tensors, _ = convert_c2_detectron_names(blobs)
        kept = {"__author__": "Caffe2, renamed by nl_detectron", "matching_heuristics": True}
    return {**kept, "model": tensors}


def build_blocks(config_file: str) -> dict[str, NonLocalBlock]:
    """The blocks of a config by their full names, on the CPU."""
    cfg = get_cfg()
    with reported_as_user_errors(config_file):
        cfg.merge_from_file(find_config(config_file))
        cfg.MODEL.DEVICE = "cpu"
        blocks = dict(non_local_blocks(build_model(cfg)))
    if not blocks:
        raise ArgumentError("--config-file", "of a model with blocks", config_file, "It places none.")
    return blocks


def load_block(blocks: dict[str, NonLocalBlock], name: str, source: dict[str, Tensor]) -> NonLocalBlock:
    """The block of that name, with its tensors from a checkpoint of ours."""
    if name not in blocks:
        raise ArgumentError("the block", "in the model of the config", name, f"It has {', '.join(blocks)}.")
    block = blocks[name]
    state = {key.removeprefix(f"{name}."): t for key, t in source.items() if key.startswith(f"{name}.")}
    with reported_as_user_errors("--source and --config-file are not of the same block"):
        block.load_state_dict(state)
    return block


def describe(block: NonLocalBlock) -> str:
    """What a config has to say so that it builds this block: a checkpoint cannot."""
    options = ", ".join(f"{name}={value!r}" for name, value in block_options(block).items())
    return f"C={block.in_channels}, d={block.inner_channels}, {options}"


@contextmanager
def reported_of_block(name: str) -> Iterator[None]:
    """Within it, a user's mistake is reported with the name of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--blocks {name}: {error}") from None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--layout", required=True, choices=LAYOUTS)
    common.add_argument("--source", type=Path, required=True, metavar="FILE", help=".pth, .pyth or .pkl")
    common.add_argument(
        "--blocks", nargs="+", required=True, action="extend", metavar="FROM=TO", help="full names"
    )
    common.add_argument("--output", type=Path, required=True, metavar="FILE", help="a new file")
    importing = commands.add_parser("import", parents=[common], help="from another implementation")
    importing.add_argument(
        "--weights", type=Path, metavar="FILE", help="what Detectron2 loads for the rest of the model"
    )
    importing.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="what the tensors do not show: pairwise, scale, subsample, dim (default: as in that "
        "implementation; dim 2)",
    )
    importing.set_defaults(run=import_blocks)
    exporting = commands.add_parser("export", parents=[common], help="to another implementation")
    exporting.add_argument(
        "--config-file", required=True, metavar="FILE", help="of the model in --source, or a shipped one"
    )
    exporting.set_defaults(run=export_blocks)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        args.run(args)


if __name__ == "__main__":
    main()
