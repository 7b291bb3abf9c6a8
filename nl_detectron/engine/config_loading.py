"""Config files and keys of a command line, merged as Detectron2 does, with each mistake under its key."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import yaml
from detectron2.config import CfgNode

from nl_detectron.errors import UserError

_EXAMPLES = {tuple: '"(\'birds\',)" or "(1, 2)"', list: '"[\'birds\']" or "[1, 2]"'}


def merge_file(cfg: CfgNode, path: str) -> Mapping[str, object]:
    """Merge a config file and its bases, and return what they give.

    Raises:
        UserError: for a file that is no config, an unknown key, or a value of another type.
        OSError: if the file itself cannot be read.
    """
    try:
        _check_yaml(path)
        content = CfgNode.load_yaml_with_base(path, allow_unsafe=True)  # as merge_from_file does
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        if error.filename == path:
            raise
        raise UserError(f"{path}: its _BASE_ {error.filename} cannot be read: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path}: its _BASE_ leads back to itself.") from None
    before = cfg.clone()
    try:
        cfg.merge_from_file(path)
    except (KeyError, ValueError):
        for key, value in flat_pairs(content):
            _merge_pair(before, key, value, f"{path}: ")  # finds the key at fault, if it is one
        raise
    return content


def merge_options(cfg: CfgNode, words: Sequence[str]) -> None:
    """Merge keys and their values from a command line.

    Raises:
        UserError: for anything else than keys, each with a value of its type.
    """
    for index in range(0, len(words), 2):
        key = words[index]
        if key.startswith("--"):
            raise UserError(f"Flags go before the config's keys; got {key} after {words[index - 1]!r}.")
        name, equals, value = key.partition("=")
        if equals:
            raise UserError(f"Write {name} {value} with a space, not {key!r}.")
        if key.endswith((".yaml", ".yml", ".py")):
            raise UserError(f"Give the config as --config-file {key}.")
        if index + 1 == len(words):
            _check_key(cfg, key)
            raise UserError(f"{key} needs a value.")
        _merge_pair(cfg, key, words[index + 1])


def flat_pairs(content: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The keys of a config with their sections, as MODEL.NON_LOCAL.RES4, and their values."""
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat_pairs(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_yaml(path: str) -> None:
    """Reject non-mappings and duplicate keys (YAML would keep only the last)."""
    with open(path, encoding="utf-8") as file:
        root = yaml.compose(file, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is no config: it has no sections and keys, like MODEL: ...")
    nodes = [root]
    while nodes:
        pairs = nodes.pop().value
        keys = [key.value for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{path} has {key!r} {keys.count(key)} times in one section.")
        nodes += [value for _, value in pairs if isinstance(value, yaml.MappingNode)]


def _merge_pair(cfg: CfgNode, key: str, value: object, where: str = "") -> None:
    """Set a key of a config, decoding the value as Detectron2 does."""
    default = _check_key(cfg, key, where)
    try:
        cfg.merge_from_list([key, value])
    except ValueError:
        example = _EXAMPLES.get(type(default), "")
        remedy = f" Write {example}." if example else ""
        kind = type(default).__name__
        raise UserError(f"{where}{key} must be of type {kind}; got {value!r}.{remedy}") from None


def _check_key(cfg: CfgNode, key: str, where: str = "") -> object:
    """Refuse an unknown key, naming those like it; the value that it has."""
    known = dict(flat_pairs(cfg))
    if key in known:
        return known[key]
    inside = [name for name in known if name.startswith(f"{key}.")]
    near = inside[:3] or difflib.get_close_matches(key.upper(), known, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else " Keys are like MODEL.WEIGHTS."
    what = "is a section of keys, not a key" if inside else "is not a key of the config"
    raise UserError(f"{where}{key!r} {what}.{hint}")
