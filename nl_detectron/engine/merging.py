"""Config files and keys of a command line, merged as Detectron2 does, with each mistake under its key."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import yaml
from detectron2.config import CfgNode

from nl_detectron.errors import UserError, reported_as_user_errors

_KINDS = {  # what a user calls a type, and how it is written where that is not plain
    bool: ("True or False", ""),
    int: ("a whole number", ""),
    float: ("a number with a point", " Write 1 as 1.0."),
    str: ("a string", ""),
    tuple: ("a tuple", """ Write one of numbers as "(1,)", one of names as "('a',)", in quotes."""),
    list: ("a list", """ Write one of numbers as "[1]", one of names as "['a']", in quotes."""),
}


def merge_file(cfg: CfgNode, path: str) -> Mapping[str, object]:
    """Merge a config file and its bases, and return what they give.

    Raises:
        UserError: for a key that is none, a value of another type, or a base that cannot be read.
        OSError: if the file itself cannot be read.
    """
    with reported_as_user_errors(path):
        _check_keys(path)
        content = _load(path)
        _merge_content(cfg, path, content)
    return content


def _load(path: str) -> Mapping[str, object]:
    try:
        return CfgNode.load_yaml_with_base(path, allow_unsafe=True)  # as merge_from_file does
    except OSError as error:
        raise UserError(f"{path}: its _BASE_ {error.filename} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path}: its _BASE_ leads back to itself.") from None
    except (AttributeError, TypeError):
        raise UserError(f"{path}: its _BASE_ must be the path of a config, and is not.") from None


def _merge_content(cfg: CfgNode, path: str, content: Mapping[str, object]) -> None:
    before = cfg.clone()
    try:
        cfg.merge_from_file(path)
    except Exception:
        for key, value in flat_pairs(content):
            merge_pair(before, key, value)  # finds the key, if it is one
        raise


def flat_pairs(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The keys of a config with their sections, as MODEL.NON_LOCAL.RES4, and their values."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat_pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_keys(path: str) -> None:
    """Refuse what is no mapping, and a key that is there twice, of which YAML would take the last."""
    with open(path, encoding="utf-8") as file:
        root = yaml.compose(file, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} must be a YAML of sections and keys, like MODEL: ...; it is not.")
    nodes = [root]
    while nodes:
        pairs = nodes.pop().value
        keys = [key.value for key, _ in pairs]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise UserError(f"{path} must have each key once; {twice[0]!r} is there {len(twice)} times.")
        nodes += [value for _, value in pairs if isinstance(value, yaml.MappingNode)]


def merge_options(cfg: CfgNode, words: Sequence[str]) -> None:
    """Merge keys and their values from a command line.

    Raises:
        UserError: for anything else than keys, each with a value of its type.
    """
    for index in range(0, len(words), 2):
        key = words[index]
        if key.startswith("--"):
            raise UserError(f"{key} must come before the config's keys; got it after {words[index - 1]!r}.")
        name, equals, value = key.partition("=")
        if equals:
            raise UserError(f"keys and values must be apart, as in {name} {value}; got {key!r}.")
        if key.endswith((".yaml", ".yml", ".py")):
            raise UserError(f"a config must come after --config-file; got {key!r} where keys are.")
        _check_key(cfg, key)
        if index + 1 == len(words):
            raise UserError(f"{key} must have a value; got none.")
        merge_pair(cfg, key, words[index + 1])


def merge_pair(cfg: CfgNode, key: str, value: object) -> None:
    """Set a key of a config, decoding the value as Detectron2 does."""
    kind, example = _KINDS.get(type(_check_key(cfg, key)), ("of its default's type", ""))
    try:
        cfg.merge_from_list([key, value])
    except ValueError:
        raise UserError(f"{key} must be {kind}; got {value!r}.{example}") from None


def _check_key(cfg: CfgNode, key: str) -> object:
    """Refuse what is no key, naming those like it; the value that it has."""
    known = dict(flat_pairs(cfg))
    if key in known:
        return known[key]
    inside = [name for name in known if name.startswith(f"{key}.")]
    near = inside[:3] or difflib.get_close_matches(key.upper(), known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else " Keys are like MODEL.WEIGHTS."
    what = "a key, not a section of keys" if inside else "a key of the config"
    raise UserError(f"{key!r} must be {what}, and is not.{hint}")
