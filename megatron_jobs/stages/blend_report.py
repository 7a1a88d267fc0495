"""What a blend is made of and whom it speaks of: licences, languages, groups, and other weights.

Counted over the documents of its sources, weighted by what training reads of each. Units of the
documents are counted by themselves; a killed job goes on with those that are missing.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json, remove, write_json, write_text
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import link
from megatron_jobs.stages.pieces import begin, run_pieces

if TYPE_CHECKING:
    from megatron_jobs.data.report.blend_facts import BlendPart
    from megatron_jobs.text.composition import CompositionCounter
    from megatron_jobs.text.readers import ReadRules, Unit
    from megatron_jobs.text.representation import MentionCounter

COUNTS = "compositions"
"""Folder of the counts of units, which `gather` reads."""
OUTPUTS = (COUNTS, "blend_report.json", "blend_report.html")
RESOURCES = Resources(ranks=2)
MOST = 1.1
"""Times the text of a source that its documents may have: some may have been too long for it."""
Unit_ = tuple[int, "Unit"]


class SourceDocuments(Settings):
    """The documents that a source of the index was made of."""

    input: tuple[InputPath, ...]
    """Files or folders: what its tokenize job read."""
    key: str = "text"
    """Of the text, in formats with keys or columns."""
    source: str = ""
    """Given to records that name no source."""
    licence: str = ""
    """Given to records that name no licence."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"


class Target(Settings):
    """A property of the blend that is to be brought nearest to some shares."""

    property: str
    """language, licence, licence_group, source, year, or a category of the word lists such as
    pronoun."""
    shares: dict[str, float]
    """Name -> share: of the tokens read, or, of a category, of the mentions of the groups that are
    named here (their shares add up to 1)."""
    floor: float = 0.0
    """Least weight of each source, as a share of the samples."""
    stay: float = 0.001
    """How much squared differences from the present weights count beside those from the target:
    small to come as near as can be, 1 and more to change little."""


class Config(Settings):
    """Which blend, and what is counted."""

    title: str = "What this blend is made of"
    index: InputPath
    """Folder that the index stage wrote."""
    documents: tuple[SourceDocuments, ...]
    """The documents of each of its sources, in the order of the index."""
    languages: tuple[str, ...] = ("en", "")
    """Documents whose words are counted, by language; "" is those that name none. Our lists are
    English."""
    lists: tuple[InputPath, ...] = ()
    """YAML files of more groups and tones: `groups: {category: {group: [term]}}`, `tones: {tone:
    [term]}`; terms are added to lists of the same name."""
    lexicons: dict[str, InputPath] = Field(default_factory=dict)
    """Tone -> text file with a term a line, such as LDNOOBW's, in place of that tone's list."""
    window: int = 10
    """Words on both sides of a mention of a group that are near it."""
    examples: int = 0
    """Of each tone near each group that the page shows at most; they are words of the documents."""
    licence_groups: dict[str, str] = Field(default_factory=dict)
    """How names of licences begin -> group, where the table does not know them or errs."""
    names: int = 50
    """Licences, languages, years and domains that are told by name; the others as one sum."""
    target: Target | None = None
    """What other weights are to bring about; null for no suggestion."""
    unit_mb: float = 64
    """Megabytes (10^6 bytes) that are counted as one."""
    max_record_mb: float = 50
    """Megabytes; a longer record is not counted."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        from megatron_jobs.text.licences import GROUPS

        if not self.documents:
            yield "documents", "found nothing, must name the documents of each source"
        for name in ("unit_mb", "max_record_mb", "window", "names"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} must be positive"
        if self.examples < 0:
            yield "examples", f"{self.examples} is negative; 0 for none"
        for name, group in self.licence_groups.items():
            if group not in GROUPS:
                yield f"licence_groups.{name}", f"{group!r} must be one of {', '.join(GROUPS)}"
        if self.target is not None:
            yield from _target_problems(self.target, len(self.documents))


def _target_problems(target: Target, sources: int) -> Iterator[Problem]:
    shares = target.shares.values()
    whole = sum(shares)
    if not target.shares or min(shares) < 0 or whole > 1 + 1e-9:
        yield "target.shares", f"{target.shares} must be shares of at most 1 together"
    if not 0 <= target.floor * sources <= 1:
        yield "target.floor", f"{target.floor} must be from 0 to 1 / {sources} sources"
    if target.stay <= 0:
        yield "target.stay", f"{target.stay} must be positive"
    of_tokens = ("language", "licence", "licence_group", "source", "year")
    if target.property not in of_tokens and abs(whole - 1) > 1e-9:
        yield "target.shares", f"add up to {whole:g}; shares of mentions must add up to 1"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Count this task's units; with one task, the leader writes the report."""
    units = _units(config)
    begin(rank, folder, _made_of(config, units), OUTPUTS)
    work = _Work(config, units, folder / COUNTS)
    run_pieces(
        rank,
        folder,
        [unit.size for _, unit in units],
        unit="bytes",
        is_done=work.is_done,
        do=work.do,
    )
    if not rank.leads:
        return {}
    if rank.tasks > 1:
        write_json(folder / OUTPUTS[1], {})
        write_text(folder / OUTPUTS[2], "")
        return {"units": len(range(rank.task, len(units), rank.tasks))}
    return _report(config, folder, units)


def gather(config: Config, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Put the counts of all tasks together and write the report."""
    remove(folder / COUNTS)
    (folder / COUNTS).mkdir(parents=True)
    units = _units(config)
    for number in range(len(units)):
        name = f"{number:06d}.json"
        link(tasks[number % len(tasks)] / COUNTS / name, folder / COUNTS / name)
    return _report(config, folder, units)


class _Work:
    """Counts units."""

    def __init__(self, config: Config, units: list[Unit_], out: Path) -> None:
        self.config, self.units, self.out = config, units, out
        self.counter: CompositionCounter | None = None

    def is_done(self, number: int) -> bool:
        return (self.out / f"{number:06d}.json").exists()

    def do(self, number: int) -> None:
        from megatron_jobs.text.composition import Composition, CompositionCounter
        from megatron_jobs.text.readers import read_unit
        from megatron_jobs.text.record import Record
        from megatron_jobs.text.shards import Quarantined

        if self.counter is None:
            self.counter = CompositionCounter(_mentions(self.config), self.config.languages)
        place, unit = self.units[number]
        found = Composition()
        for item in read_unit(unit, _rules(self.config, place)):
            if isinstance(item, Record):
                self.counter.count(item, found)
            found.quarantined += isinstance(item, Quarantined)
        write_json(self.out / f"{number:06d}.json", {"source": place, **asdict(found)})


def _mentions(config: Config) -> "MentionCounter":
    from megatron_jobs.text.representation import MentionCounter
    from megatron_jobs.text.word_lists import read_word_lists

    lists = read_word_lists(config.lists, config.lexicons)
    return MentionCounter(lists, window=config.window, examples=config.examples)


def _rules(config: Config, place: int) -> "ReadRules":
    from megatron_jobs.text.readers import ReadRules

    given = config.documents[place]
    limit = int(config.max_record_mb * 1e6)
    return ReadRules(given.key, limit, given.source, given.licence)


def _units(config: Config) -> list[Unit_]:
    """(source, unit) of all documents; the same in every task and rank."""
    from megatron_jobs.text.readers import PAGES, cut_units, input_files

    units: list[Unit_] = []
    for place, given in enumerate(config.documents):
        files = input_files(given.input)
        pages = [file for file in files if file.format in PAGES]
        if pages:
            found = f"{pages[0].name} holds pages, must be texts"
            raise UserError(f"documents.{place}: {found}; give what its tokenize job read")
        units += [(place, unit) for unit in cut_units(files, int(config.unit_mb * 1e6))]
    return units


def _made_of(config: Config, units: list[Unit_]) -> dict[str, Any]:
    """What counts depend on; the index and the target they do not."""
    from megatron_jobs.runtime.files import file_hash

    pieces = [
        (place, str(piece.path), piece.start, piece.end, piece.stamp)
        for place, unit in units
        for piece in unit.pieces
    ]
    names = {"documents", "languages", "lists", "lexicons", "window", "examples", "max_record_mb"}
    lists = [file_hash(path) for path in (*config.lists, *config.lexicons.values())]
    return {
        "settings": config.model_dump(mode="json", include=names),
        "units": hashlib.sha256(json.dumps(pieces).encode()).hexdigest(),
        "lists": lists,
    }


def _report(config: Config, folder: Path, units: list[Unit_]) -> dict[str, float]:
    """Write the report of all counts."""
    from megatron_jobs.data.report.blend_facts import BlendRules, blend_facts
    from megatron_jobs.data.report.blend_page import render_blend_report
    from megatron_jobs.data.report.suggestion import Wish, suggest

    parts = _parts(config, folder, units)
    own = {name.lower(): group for name, group in config.licence_groups.items()}
    without = _mentions(config).without_words
    facts = blend_facts(parts, BlendRules(own, config.names, without))
    suggestion = None
    if config.target is not None:
        wish = Wish(**{name: getattr(config.target, name) for name in Target.model_fields})
        suggestion = suggest(parts, wish, own)
    facts = {"title": config.title, **facts, "suggestion": suggestion}
    write_json(folder / OUTPUTS[1], facts)
    write_text(folder / OUTPUTS[2], render_blend_report(facts))
    return {
        "documents": sum(part.made_of.documents for part in parts),
        "quarantined": facts["quarantined"],
        "tokens": facts["tokens"],
        "words": facts["words_counted"],
    }


def _parts(config: Config, folder: Path, units: list[Unit_]) -> "list[BlendPart]":
    """Each source with the counts of its units, added up in their order."""
    from megatron_jobs.data.report.blend_facts import BlendPart
    from megatron_jobs.data.trained_tokens import trained_sources
    from megatron_jobs.text.composition import Composition

    sources = trained_sources(config.index)
    if len(sources) != len(config.documents):
        named = ", ".join(source.name for source in sources)
        found = f"{len(config.documents)} given, the index has {len(sources)} sources ({named})"
        raise UserError(f"documents: {found}; give one entry for each, in this order")
    found_of = [Composition() for _ in sources]
    for number, (place, _) in enumerate(units):
        counts = Composition.of(read_json(folder / COUNTS / f"{number:06d}.json"))
        found_of[place].add(counts, examples=config.examples)
    for place, (source, made_of) in enumerate(zip(sources, found_of, strict=True)):
        if not made_of.bytes:
            raise UserError(f"documents.{place}: found no text in it; give what was tokenized")
        if source.text_bytes and made_of.bytes > MOST * source.text_bytes:
            sizes = f"{made_of.bytes:,} bytes of text, {source.name} was made of"
            cure = "give what was tokenized, in the order of the index"
            raise UserError(f"documents.{place}: found {sizes} {source.text_bytes:,}; {cure}")
    return [BlendPart(source, made_of) for source, made_of in zip(sources, found_of, strict=True)]
