"""Config files and keys of a command line, merged as Detectron2 does, with each mistake under its key."""

import ast
import difflib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import yaml
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager
from fvcore.common.config import BASE_KEY

from nl_detectron.errors import UserError

_CODE = tuple(f"tag:yaml.org,2002:python/{kind}" for kind in ("object", "name", "module"))  # and object/apply
_EXAMPLES = {tuple: "({!r},)", list: "[{!r}]"}


def merge_file(cfg: CfgNode, path: str) -> Mapping[str, object]:
    """Merge a config file and its bases, and return what they give."""
    try:
        _check_yaml(path, ())
        content = CfgNode.load_yaml_with_base(path, allow_unsafe=True)  # as merge_from_file does
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    for key, value in content.items():
        if not isinstance(key, str) or (isinstance(cfg.get(key), CfgNode) and not isinstance(value, Mapping)):
            raise UserError(f"{path}: {key!r} is no section with keys in it. Add them, or remove it.")
    before = cfg.clone()
    try:
        cfg.merge_from_file(path)
    except (KeyError, ValueError):
        for key, value in flat_pairs(content):
            _merge_pair(before, key, value, f"{path}: ")  # finds the key at fault, if it is one
        raise
    return content


def merge_options(cfg: CfgNode, words: Sequence[str]) -> None:
    """Merge keys and their values from a command line."""
    for key in words[::2]:
        if key.startswith("--"):
            raise UserError(f"Flags go before the config's keys; move {key}.")
        _find_key(cfg, key)
    if len(words) % 2:
        raise UserError(f"{words[-1]} needs a value.")
    for key, value in zip(words[::2], words[1::2], strict=True):
        _merge_pair(cfg, key, value)


def flat_pairs(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The keys of a config with their sections, as MODEL.NON_LOCAL.RES4, and their values."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat_pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_yaml(path: str, users: Sequence[str]) -> None:
    """Reject, in a file and its bases: non-mappings, duplicate keys (YAML would keep only the last), and tags
    that run code, which Detectron2 would follow. Its own file with such a tag, RetinaNet's, is accepted.
    """
    if path in users:
        raise UserError(f"{users[0]}: its _BASE_ leads back to itself.")
    with PathManager.open(path) as file:
        text = file.read()
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is not a config: its content is not a YAML mapping such as MODEL: ...")
    nodes, seen, bases = [root], set(), []  # an anchor may be in itself
    while nodes:
        node = nodes.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag.startswith(_CODE) and text not in _detectron2s_own(path):
            tag = node.tag.removeprefix("tag:yaml.org,2002:")
            raise UserError(f"{path} would run code, by its tag !!{tag}. Write the value that it stands for.")
        if isinstance(node, yaml.MappingNode):
            for key, count in Counter(str(key.value) for key, _ in node.value).items():
                if count > 1:
                    raise UserError(f"{path} has {key!r} {count} times in one section.")
            bases += [value for key, value in node.value if key.value == BASE_KEY]  # << may merge one
            nodes += chain(*node.value)
        elif isinstance(node, yaml.SequenceNode):
            nodes += node.value
    for base in bases:
        for name in (
            [base.value] if isinstance(base, yaml.ScalarNode) else [each.value for each in base.value]
        ):
            is_absolute = name.startswith(("/", "http://", "https://", "~"))
            file = os.path.expanduser(name) if is_absolute else os.path.join(os.path.dirname(path), name)
            _check_yaml(file, (*users, path))


def _detectron2s_own(path: str) -> set[str]:
    """The text of its own config of this name, if there is one."""
    folder = Path(model_zoo.__file__).with_name("configs")
    return {file.read_text() for file in folder.rglob(Path(path).name)}


def _merge_pair(cfg: CfgNode, key: str, value: object, where: str = "") -> None:
    """Set a key of a config, decoding the value as Detectron2 does."""
    kind = type(_find_key(cfg, key, where))
    try:
        cfg.merge_from_list([key, value])
    except ValueError:
        remedy = _example(kind, value)
        raise UserError(f"{where}{key} must be of type {kind.__name__}; got {value!r}.{remedy}") from None


def _example(kind: type, value: object) -> str:
    """The value as it is written where a tuple or a list is expected."""
    with suppress(ValueError, SyntaxError):
        value = ast.literal_eval(value) if isinstance(value, str) else value
    return f' Write "{_EXAMPLES[kind].format(value)}".' if kind in _EXAMPLES else ""


def _find_key(cfg: CfgNode, key: str, where: str = "") -> object:
    """The value of a key. An unknown one is refused, with those like it."""
    known = dict(flat_pairs(cfg))
    if key in known:
        return known[key]
    name, equals, value = key.partition("=")
    if equals and name in known:
        raise UserError(f"Write {name} {value} with a space, not {key!r}.")
    inside = [other for other in known if other.startswith(f"{key}.")]
    near = inside[:3] or difflib.get_close_matches(key.upper(), known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else " Keys are like MODEL.WEIGHTS."
    what = "is a section of keys, not a key" if inside else "is not a key of the config"
    raise UserError(f"{where}{key!r} {what}.{hint}")
