"""Config files and keys of a command line, merged as Detectron2 does, with each mistake under its key."""

import difflib
from collections.abc import Iterator, Mapping, Sequence

import yaml
from detectron2.config import CfgNode

from nl_detectron.errors import UserError

_EXAMPLES = {tuple: ' Write "(\'birds\',)" or "(1, 2)".', list: ' Write "[\'birds\']" or "[1, 2]".'}


def merge_file(cfg: CfgNode, path: str) -> Mapping[str, object]:
    """Merge a config file and its bases, and return what they give."""
    try:
        _check_yaml(path)
        content = CfgNode.load_yaml_with_base(path, allow_unsafe=True)  # as merge_from_file does
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
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


def _check_yaml(path: str) -> None:
    """Reject non-mappings and duplicate keys (YAML would keep only the last)."""
    with open(path, encoding="utf-8") as file:
        root = yaml.compose(file, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{path} is not a config: its content is not a YAML mapping such as MODEL: ...")
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
    kind = type(_find_key(cfg, key, where))
    try:
        cfg.merge_from_list([key, value])
    except ValueError:
        remedy = _EXAMPLES.get(kind, "")
        raise UserError(f"{where}{key} must be of type {kind.__name__}; got {value!r}.{remedy}") from None


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
