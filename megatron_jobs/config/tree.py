"""Raw configuration: YAML files and `key=value` words in one tree, with the origin of each value.

Order: defaults of the classes < preset < file < words. Nothing here knows what the settings mean.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.config.settings import Problem
from megatron_jobs.errors import UserError

SHIPPED = Path(__file__).parent.parent
"""Where the plans and presets lie that come with the package."""


@dataclass
class Tree:
    """A nested mapping, where each leaf came from, and what was wrong on the way."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Dotted name of a leaf -> `plan.yaml:12`, `preset llama-tiny` or `command line`."""
    problems: list[Problem] = field(default_factory=list)


def read_tree(path: Path, shown: str = "") -> Tree:
    """The tree of a YAML file; UserError when it cannot be read as one.

    A string beginning with `./` means "beside this file" and becomes an absolute path.
    """
    name = shown or str(path)
    tree = Tree()
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            tree.values = _mapping(tree, loader, node, "", (name, path.parent.absolute()))
            return tree
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read: {error}") from error
    except RecursionError as error:
        raise UserError(f"{name}: not a tree: an alias leads back to itself") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise UserError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    raise UserError(f"{name}: must be a mapping of settings, `name: value` on each line")


def _mapping(
    tree: Tree, loader: yaml.SafeLoader, node: yaml.MappingNode, prefix: str, origin: Any
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node))
        dotted = f"{prefix}{key}"
        if key in values:
            tree.problems.append((dotted, f"given twice, again in line {_line(key_node)}"))
        values[key] = _value(tree, loader, value_node, dotted, origin)
    return values


def _value(tree: Tree, loader: yaml.SafeLoader, node: Any, dotted: str, origin: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(tree, loader, node, f"{dotted}.", origin)
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(tree, loader, item, f"{dotted}.{place}", origin)
            for place, item in enumerate(node.value)
        ]
    name, folder = origin
    tree.origins[dotted] = f"{name}:{_line(node)}"
    value = loader.construct_object(node)
    return str(folder / value) if isinstance(value, str) and value.startswith("./") else value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def apply_words(tree: Tree, words: list[str]) -> None:
    """Set each `dotted.name=value` in the tree; values are read as YAML."""
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name:
            tree.problems.append((word, "not of the form key=value"))
            continue
        try:
            value = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            value = text
        _set(tree, name, value)


def _set(tree: Tree, name: str, value: Any) -> None:
    *parents, last = name_parts(tree.values, name)
    place: Any = tree.values
    for depth, parent in enumerate(parents):
        place = _step_into(place, parent)
        if place is None:
            above = ".".join(parents[: depth + 1])
            tree.problems.append((name, f"{above} is not a mapping or list with that place"))
            return
    if isinstance(place, list):
        if not last.isdecimal() or int(last) >= len(place):
            tree.problems.append((name, f"the list has {len(place)} places, counted from 0"))
            return
        place[int(last)] = value
    else:
        place[last] = value
    below = [old for old in tree.origins if old == name or old.startswith(f"{name}.")]
    for old in below:
        del tree.origins[old]
    for leaf in leaf_names(value, name):
        tree.origins[leaf] = "command line"


def name_parts(values: dict[str, Any], name: str) -> list[str]:
    """A dotted name cut at its dots; the longest first key that is there may hold dots itself."""
    heads = [key for key in values if name == key or name.startswith(f"{key}.")]
    head = max(heads, key=len, default=name.partition(".")[0])
    rest = name[len(head) + 1 :]
    return [head, *rest.split(".")] if rest else [head]


def _step_into(place: Any, name: str) -> Any:
    if isinstance(place, list):
        found = place[int(name)] if name.isdecimal() and int(name) < len(place) else None
    else:
        found = place.setdefault(name, {})
        if found is None:
            found = place[name] = {}
    return found if isinstance(found, (dict, list)) else None


def leaf_names(value: Any, prefix: str) -> Iterator[str]:
    """Dotted names of all scalars in a value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaf_names(item, f"{prefix}.{key}")
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaf_names(item, f"{prefix}.{place}")
    else:
        yield prefix


def underlay_presets(tree: Tree) -> None:
    """Put under each mapping with a `preset` the values of that preset, and take the key away."""
    _underlay(tree, tree.values, "", "")


def _underlay(tree: Tree, place: Any, prefix: str, kind: str) -> None:
    if isinstance(place, list):
        for number, item in enumerate(place):
            _underlay(tree, item, f"{prefix}{number}.", kind)
    if not isinstance(place, dict):
        return
    if "preset" in place and kind:
        _lay_under(tree, place, prefix, kind)
    for key, item in place.items():
        _underlay(tree, item, f"{prefix}{key}.", key)


def _lay_under(tree: Tree, place: dict[str, Any], prefix: str, kind: str) -> None:
    wanted = str(place.pop("preset"))
    tree.origins.pop(f"{prefix}preset", None)
    path = SHIPPED / "configs" / f"{kind}s" / f"{wanted}.yaml"
    if "/" in wanted or wanted.endswith(".yaml"):
        path = Path(wanted)
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.yaml"))
        tree.problems.append((f"{prefix}preset", no_such("preset", wanted, known)))
        return
    preset = read_tree(path)
    tree.problems += [(f"{prefix}{name}", f"{path}: {text}") for name, text in preset.problems]
    for key, value in preset.values.items():
        if key not in place:
            place[key] = value
            for leaf in leaf_names(value, f"{prefix}{key}"):
                tree.origins[leaf] = f"preset {wanted}"


def no_such(what: str, found: str, known: list[str]) -> str:
    """`no such setting: 'x'; did you mean y?`, or all that are known when none is near."""
    near = get_close_matches(found, known, n=1)
    if near:
        return f"no such {what}: {found!r}; did you mean {near[0]}?"
    return f"no such {what}: {found!r}; there are {', '.join(known) or 'none'}"
