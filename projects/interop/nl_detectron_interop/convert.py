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

from nl_detectron import NonLocalBlock
from nl_detectron.checkpoint import VARIANTS, convert_resnet, find_state_dict, read_checkpoint
from nl_detectron.engine import output_path, read_config
from nl_detectron.errors import UserError, one_line_errors
from nl_detectron.modeling import non_local_blocks

from .blocks import block_options, export_block, import_block
from .files import check_is_new, tensors_in, write_checkpoint
from .layouts import LAYOUTS, Layout

OPTIONS = ("pairwise", "scale", "subsample", "dim")
VALUES = {"True": True, "False": False, "1": 1, "2": 2, "3": 3}


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with one_line_errors():
        args.run(args)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--layout", required=True, choices=LAYOUTS)
    common.add_argument("--source", type=Path, required=True, metavar="FILE", help=".pth, .pyth or .pkl")
    common.add_argument(
        "--blocks", nargs="+", required=True, action="extend", metavar="FROM=TO", help="full names"
    )
    common.add_argument("--output", type=output_path, required=True, metavar="FILE", help="a new file")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    importing = commands.add_parser("import", parents=[common], help="from another implementation")
    importing.add_argument(
        "--weights", type=Path, metavar="FILE", help="what Detectron2 loads for the rest of the model"
    )
    importing.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"what the tensors do not show: {', '.join(OPTIONS)} (default: that implementation's; dim 2)",
    )
    importing.set_defaults(run=import_blocks)
    exporting = commands.add_parser("export", parents=[common], help="to another implementation")
    exporting.add_argument(
        "--config-file", required=True, metavar="FILE", help="of the model in --source, or a shipped one"
    )
    exporting.set_defaults(run=export_blocks)
    return parser.parse_args(argv)


def import_blocks(args: argparse.Namespace) -> None:
    """Write blocks of `args.source` under our names, merged into `args.weights`."""
    check_output(args.output, ".pth")
    options = {"dim": 2, **dict(parse_option(text) for text in args.option)}  # a detector's, if not told
    source = tensors_in(read_checkpoint(args.source))
    result = read_weights(args.weights) if args.weights else {"model": {}}
    for theirs, ours in parse_blocks(args.blocks).items():
        with errors_of_block(theirs):
            tensors = tensors_of_block(source, theirs, LAYOUTS[args.layout])
            block = import_block(tensors, args.layout, **options)
        others = {name: each for name, each in result["model"].items() if not name.startswith(f"{ours}.")}
        new = {f"{ours}.{name}": tensor for name, tensor in block.state_dict().items()}
        result["model"] = others | new
        result.setdefault(VARIANTS, {})[ours] = block.variant()
        print(f"{theirs} -> {ours}: {describe(block)}")
    write_checkpoint(args.output, result)
    if assumed := [name for name in OPTIONS if name not in options]:
        print(f"without --option, as the tensors or the defaults of {args.layout} say: {', '.join(assumed)}")
    report(args, len(result["model"]))


def export_blocks(args: argparse.Namespace) -> None:
    """Write blocks of `args.source` in another layout; their options are those of `args.config_file`."""
    layout = LAYOUTS[args.layout]
    check_output(args.output, ".pkl" if layout.wrapper == "blobs" else ".pth")
    args.opts, args.register_coco = ["MODEL.DEVICE", "cpu"], []  # for `read_config`
    blocks = dict(non_local_blocks(build_model(read_config(args)[0])))
    content = read_checkpoint(args.source)
    source, variants = tensors_in(content), content.get(VARIANTS, {})
    tensors: dict[str, Tensor] = {}
    for ours, theirs in parse_blocks(args.blocks).items():
        with errors_of_block(ours):
            block = load_block(blocks, ours, source)
            if variants.get(ours, block.variant()) != block.variant():
                raise UserError(
                    f"it was trained as {variants[ours]}, and --config-file has {block.variant()}. Give the "
                    "config of that run."
                )
            exported = export_block(block, args.layout)
        tensors |= {f"{theirs}{layout.separator}{name}": tensor for name, tensor in exported.items()}
        print(f"{ours} -> {theirs}: {describe(block)}")
    write_checkpoint(args.output, {layout.wrapper: tensors} if layout.wrapper else tensors)
    report(args, len(tensors))


def report(args: argparse.Namespace, tensors: int) -> None:
    """Print what was written."""
    print(f"written: {args.output} (layout {args.layout}, blocks: {len(args.blocks)}, tensors: {tensors})")


def check_output(path: Path, suffix: str) -> None:
    """Refuse a file that its readers would take for another format, or that exists."""
    if path.suffix != suffix:
        raise UserError(f"--output {str(path)!r} must be a {suffix}: its readers tell formats by that.")
    if not path.parent.is_dir():
        raise UserError(f"--output {str(path)!r} is in a folder that does not exist.")
    check_is_new(path)


def parse_option(text: str) -> tuple[str, str | bool | int]:
    """ "scale=False" to ("scale", False)."""
    name, equals, value = text.partition("=")
    if name not in OPTIONS or not equals:
        raise UserError(f"--option {text} is not NAME=VALUE with a name of {', '.join(OPTIONS)}.")
    return name, VALUES.get(value, value)


def parse_blocks(pairs: Sequence[str]) -> dict[str, str]:
    """Where each block goes, by where it comes from."""
    blocks: dict[str, str] = {}
    for pair in pairs:
        theirs, _, ours = pair.partition("=")
        if not theirs or not ours or "=" in ours:
            raise UserError(f"--blocks {pair} is not FROM=TO. Give the full names of a block.")
        if theirs in blocks or ours in blocks.values():
            raise UserError(f"--blocks {pair} names a block that another pair names. Give each block once.")
        blocks[theirs] = ours
    return blocks


def tensors_of_block(source: dict[str, Tensor], block: str, layout: Layout) -> dict[str, Tensor]:
    """The tensors of one block, named relative to it; a UserError names the blocks that there are."""
    prefix = block + layout.separator
    tensors = {name.removeprefix(prefix): t for name, t in source.items() if name.startswith(prefix)}
    if not tensors:
        ends = {layout.separator + layout.name("g.weight", pooled=pooled) for pooled in (False, True)}
        found = [name.removesuffix(end) for name in source for end in ends if name.endswith(end)]
        raise UserError(
            f"--source does not have it. Its blocks: {', '.join(found) or 'none of this layout'}."
        )
    return tensors


def read_weights(path: Path) -> dict[str, Any]:
    """A checkpoint that Detectron2 can load, with all names in Detectron2's way, and nothing but the model.

    Who loads it would rename our blocks too, if it were left to it to rename the files of others.
    """
    content = read_checkpoint(path)
    kept = {key: content[key] for key in ("__author__", "matching_heuristics", VARIANTS) if key in content}
    if path.suffix == ".pkl" and "model" not in content:
        blobs = tensors_in(content)
        blobs = {name: tensor for name, tensor in blobs.items() if not name.endswith("_momentum")}
        tensors, _ = convert_c2_detectron_names(blobs)
        kept = {"__author__": "Caffe2, renamed by nl_detectron", "matching_heuristics": True}
        return {**kept, "model": tensors}
    tensors, needs = convert_resnet(find_state_dict(content))
    if needs:
        print(f"{path}: {needs}.")
        kept |= {"__author__": "renamed by nl_detectron", "matching_heuristics": True}
    return {**kept, "model": tensors_in(tensors)}


def load_block(blocks: dict[str, NonLocalBlock], name: str, source: dict[str, Tensor]) -> NonLocalBlock:
    """The block of that name, with its tensors from a checkpoint of ours."""
    if name not in blocks:
        raise UserError(f"--config-file does not have it. Its blocks: {', '.join(blocks) or 'none'}.")
    state = {key.removeprefix(f"{name}."): t for key, t in source.items() if key.startswith(f"{name}.")}
    try:
        blocks[name].load_state_dict(state)
    except RuntimeError as error:  # of names and shapes
        reason = " ".join(str(error).split())
        raise UserError(f"--source and --config-file are not of the same block: {reason}") from error
    return blocks[name]


def describe(block: NonLocalBlock) -> str:
    """What a config has to say so that it builds this block: a checkpoint cannot."""
    options = ", ".join(f"{name}={value!r}" for name, value in block_options(block).items())
    return f"C={block.in_channels}, d={block.inner_channels}, {options}"


@contextmanager
def errors_of_block(name: str) -> Iterator[None]:
    """Within it, a user's mistake is reported with the name of the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"--blocks {name}: {error}") from error


if __name__ == "__main__":
    main()
