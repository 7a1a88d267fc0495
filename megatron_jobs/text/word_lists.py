"""Lists of words by which texts are told who is spoken of, and in which tone.

A file of lists is YAML: `groups: {category: {group: [term]}}` and `tones: {tone: [term]}`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.errors import UserError

OWN = Path(__file__).with_name("word_lists.yaml")
"""English; written for this package."""
Terms = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class WordLists:
    """Terms of one or several words each; a term may stand in several lists."""

    groups: Terms
    """By `category.group`, such as `religion.Hindu`."""
    tones: Terms
    """By name, such as `negative`."""


def read_word_lists(
    more: Sequence[Path] = (), lexicons: Mapping[str, Path] | None = None
) -> WordLists:
    """Our lists, with those of other files added.

    Args:
        more: files of lists; their terms are added to those of the same name.
        lexicons: tone -> text file with one term a line; it stands in place of the tone's list.
    Raises: UserError for a file that holds no lists.
    """
    groups: Terms = {}
    tones: Terms = {}
    for path in (OWN, *more):
        found = _read(path)
        for name, terms in _groups(found.get("groups") or {}, path):
            groups[name] = _joined(groups.get(name, ()), terms)
        for name, terms in _lists(found.get("tones") or {}, f"{path}: tones"):
            tones[name] = _joined(tones.get(name, ()), terms)
    for name, path in (lexicons or {}).items():
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        tones[name] = _joined((), (line.strip() for line in lines if line.strip()))
        if not tones[name]:
            raise UserError(f"{path}: found no line, must hold one term a line")
    return WordLists(groups, tones)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if not isinstance(found, dict) or not found or set(found) - {"groups", "tones"}:
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise UserError(f"{path}: found {keys or 'nothing'}, must hold groups, tones or both")
    return found


def _groups(found: Any, path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not isinstance(found, dict):
        raise UserError(f"{path}: groups: found {found!r}, must be categories with groups")
    for category, groups in found.items():
        for name, terms in _lists(groups, f"{path}: groups.{category}"):
            yield f"{category}.{name}", terms


def _lists(found: Any, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if not isinstance(found, dict):
        raise UserError(f"{where}: found {found!r}, must be names with lists of terms")
    for name, terms in found.items():
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms):
            raise UserError(f"{where}.{name}: found {terms!r}, must be a list of strings")
        yield str(name), tuple(terms)


def _joined(terms: Sequence[str], more: Any) -> tuple[str, ...]:
    """Lower case, each once, in order."""
    return tuple(dict.fromkeys([*terms, *(term.lower() for term in more)]))
