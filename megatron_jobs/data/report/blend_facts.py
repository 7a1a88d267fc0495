"""What a blend is made of, by what training reads of it: the numbers of blend_report.json.

The documents of a source stand for its tokens: a name with half of a source's bytes has half of
the tokens that training reads of it. Words count as often as training reads them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import log2
from typing import Any

from megatron_jobs.data.report.association import Rate, compare, pooled
from megatron_jobs.data.trained_tokens import TrainedSource
from megatron_jobs.text.composition import Composition, Tally
from megatron_jobs.text.licences import licence_group
from megatron_jobs.text.representation import readability

KINDS = ("licences", "languages", "years", "domains", "sources")
"""Tallies of bytes."""
Facts = dict[str, Any]


@dataclass(frozen=True)
class BlendPart:
    """A source and the documents that it was made of."""

    source: TrainedSource
    made_of: Composition

    @property
    def tokens_read(self) -> float:
        """Tokens of the documents that were counted here: all, or those that were given."""
        size = self.source.text_bytes
        return self.source.tokens * (self.made_of.bytes / size if size else 1.0)

    @property
    def weight(self) -> float:
        """How often training reads what was counted here."""
        read = self.tokens_read
        return self.source.trained / read if read else 0.0

    def tokens(self, tally: Tally) -> dict[str, float]:
        """Of each name, what training reads; the sum of those not held under `rest`."""
        counts = tally.counts | ({"rest": tally.rest} if tally.rest else {})
        scale = self.source.trained / self.made_of.bytes if self.made_of.bytes else 0.0
        return {name: count * scale for name, count in counts.items()}


@dataclass(frozen=True)
class BlendRules:
    """What is told of a blend beside its counts."""

    licence_groups: Mapping[str, str] = field(default_factory=dict)
    """Of one's own; see `licence_group`."""
    names: int = 50
    """Of each kind that are told; the others are one sum."""
    terms_without_words: Sequence[str] = ()


def blend_facts(parts: Sequence[BlendPart], rules: BlendRules) -> Facts:
    """All numbers of a report."""
    trained = sum(part.source.trained for part in parts)
    tokens = {kind: tokens_by(parts, kind) for kind in KINDS}
    groups: dict[str, float] = {}
    for name, count in tokens["licences"].items():
        group = licence_group(name, rules.licence_groups)
        groups[group] = groups.get(group, 0.0) + count
    return {
        "tokens": trained,
        "parts": [_part(part, trained) for part in parts],
        "licence_groups": ranked(groups, rules.names),
        "unnamed_licence": tokens["licences"].get("", 0.0),
        **{kind: ranked(found, rules.names) for kind, found in tokens.items()},
        "domain_entropy": _domains(tokens["domains"]),
        "lengths": _documents(parts, lambda made_of: made_of.lengths),
        "grades": _documents(parts, lambda made_of: made_of.grades),
        "grade": _grade(parts),
        "words": _weighted(parts, lambda made_of: made_of.mentions.words),
        "words_counted": sum(part.made_of.mentions.words for part in parts),
        "documents_with_words": _with_words(parts),
        "groups": _groups(parts),
        "associations": associations(parts),
        "examples": _examples(parts),
        "terms_without_words": list(rules.terms_without_words),
        "quarantined": sum(part.made_of.quarantined for part in parts),
    }


def tokens_by(parts: Sequence[BlendPart], kind: str) -> dict[str, float]:
    """Tokens that training reads, by the names of a kind."""
    total: dict[str, float] = {}
    for part in parts:
        for name, count in part.tokens(getattr(part.made_of, kind)).items():
            total[name] = total.get(name, 0.0) + count
    return total


def ranked(counts: Mapping[str, float], most: int) -> dict[str, float]:
    """The largest in order, "" among them whatever its size, and the sum of the others."""
    order = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = dict(order[:most]) | {name: count for name, count in order[most:] if not name}
    rest = [count for name, count in order if name not in shown]
    return shown | ({f"{len(rest)} more": sum(rest)} if rest else {})


def _part(part: BlendPart, trained: float) -> Facts:
    facts = asdict(part.source) | {"path": str(part.source.path)}
    made_of = part.made_of
    counted = {"documents": made_of.documents, "bytes": made_of.bytes}
    share = part.source.trained / trained if trained else 0.0
    return {
        **facts,
        **counted,
        "share": share,
        "words": made_of.mentions.words,
        "grade": _grade([part]),
    }


def _weighted(parts: Sequence[BlendPart], count: Callable[[Composition], float]) -> float:
    """A count, each as often as training reads it."""
    return sum(part.weight * count(part.made_of) for part in parts)


def _documents(
    parts: Sequence[BlendPart], tally: Callable[[Composition], Tally]
) -> dict[str, float]:
    """Documents that training reads, by a number, from the lowest."""
    found: dict[int, float] = {}
    for part in parts:
        for name, count in tally(part.made_of).counts.items():
            found[int(name)] = found.get(int(name), 0.0) + part.weight * count
    return {str(number): found[number] for number in sorted(found)}


def _domains(tokens: Mapping[str, float]) -> Facts:
    """How evenly the tokens with an address spread: bits, and as many equal domains as that is."""
    known = [count for name, count in tokens.items() if name and count > 0]
    whole = sum(known)
    bits = sum(count / whole * log2(whole / count) for count in known)
    return {"domains": len(known), "bits": bits, "equal_domains": 2**bits if known else 0}


def _grade(parts: Sequence[BlendPart]) -> float | None:
    """The school year that all words and sentences together ask for."""
    words = _weighted(parts, lambda made_of: made_of.mentions.words)
    if not words:
        return None
    letters = _weighted(parts, lambda made_of: made_of.letters)
    return readability(letters, words, _weighted(parts, lambda made_of: made_of.sentences))


def _with_words(parts: Sequence[BlendPart]) -> float:
    """The share of the documents whose words were counted."""
    read = _weighted(parts, lambda made_of: made_of.documents)
    return _weighted(parts, lambda made_of: made_of.mentions.documents) / read if read else 0.0


def _groups(parts: Sequence[BlendPart]) -> list[Facts]:
    """Mentions of each group in a million words that training reads, by category."""
    words = _weighted(parts, lambda made_of: made_of.mentions.words)
    names = sorted({name for part in parts for name in part.made_of.mentions.groups})
    found = []
    for name in names:
        category, _, group = name.partition(".")
        counts = [part.made_of.mentions.groups.get(name, 0) for part in parts]
        mentions = sum(p.weight * count for p, count in zip(parts, counts, strict=True))
        counted = sum(counts)
        facts = {"mentions": mentions, "per_million": 1e6 * mentions / words, "counted": counted}
        found.append({"category": category, "group": group, **facts})
    return sorted(found, key=lambda one: (one["category"], -one["mentions"], one["group"]))


def associations(parts: Sequence[BlendPart]) -> list[Facts]:
    """Each tone near each group against all words that are not near it, most different first."""
    groups = sorted({name for part in parts for name in part.made_of.mentions.near_words})
    tones = sorted({name for part in parts for name in part.made_of.mentions.tones})
    found = [_association(parts, group, tone) for group in groups for tone in tones]
    return sorted(found, key=lambda one: (-one["distance"], -abs(one["log_odds"])))


def _association(parts: Sequence[BlendPart], group: str, tone: str) -> Facts:
    mentions = [part.made_of.mentions for part in parts]
    hits = [m.near_tones.get(f"{group}|{tone}", 0) for m in mentions]
    trials = [m.near_words.get(group, 0) for m in mentions]
    weights = [part.weight for part in parts]
    other_hits = [m.tones.get(tone, 0) - hit for m, hit in zip(mentions, hits, strict=True)]
    other_trials = [m.words - size for m, size in zip(mentions, trials, strict=True)]
    near = pooled([*map(float, hits)], [*map(float, trials)], weights)
    elsewhere = pooled([*map(float, other_hits)], [*map(float, other_trials)], weights)
    difference = compare(near, elsewhere)
    return {
        "group": group,
        "tone": tone,
        **_rates(near, elsewhere),
        "hits": sum(hits),
        "words": sum(trials),
        **asdict(difference),
        "distance": difference.distance,
    }


def _rates(near: Rate, elsewhere: Rate) -> dict[str, float]:
    return {"near": 1e6 * near.share, "elsewhere": 1e6 * elsewhere.share}


def _examples(parts: Sequence[BlendPart]) -> dict[str, list[Facts]]:
    found: dict[str, list[Facts]] = {}
    for part in parts:
        for key, examples in part.made_of.mentions.examples.items():
            rows = [{"document": name, "words": words} for _, name, words in examples]
            found.setdefault(key, []).extend(rows)
    return found
