"""Tokenizers compared on documents: bytes per token and tokens per word, language by language.

RUN/JOB/report.json    all numbers
RUN/JOB/report.md      the tables, printed by `mj run`
RUN/JOB/report.html    the same as a page
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.runtime.rank import Rank

if TYPE_CHECKING:
    from megatron_jobs.text.fertility import Measure
    from megatron_jobs.text.language_sample import LanguageSample

OUTPUTS = ("report.json", "report.md", "report.html")
RESOURCES = Resources()
SHOW = "report.md"
HELD_OUT = 10
"""Of the texts of a curve, one in so many is measured and not learned from."""


class Config(Settings):
    """Which tokenizers, on which texts."""

    input: list[InputPath]
    """Files or folders: .jsonl or .json with an object a line, .txt with a document a file; packed
    ones of each too."""
    tokenizers: dict[str, InputPath]
    """Name -> a tokenizer of any format: a folder, tokenizer.json, .model, .tiktoken, vocab.json
    beside merges.txt, vocab.txt."""
    patterns: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    """Name -> pattern of a .tiktoken or merges.txt that does not say its own: gpt2, cl100k, o200k,
    or one in full."""
    key: str = "text"
    """Of the text in a line's object."""
    group: str = "language"
    """Of what texts are told apart by in a line's object; a .txt goes by its name."""
    sample_mb: float = 20
    """Megabytes (10^6 bytes) of the first texts of each language that are read."""
    sizes: tuple[int, ...] = ()
    """Of vocabularies that are trained on the texts, such as 4096, 8192, ... 65536, to see which
    size is worth its tokens; empty for none."""
    least_gain: float = 0.05
    """The size suggested is the first whose doubling gives less than this share more bytes per
    token."""
    max_line_mb: float = 50
    """Megabytes (10^6 bytes); a longer line is left out."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work together."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"
        if not self.tokenizers:
            yield "tokenizers", "found none, must name at least one"
        there = ", ".join(self.tokenizers) or "none"
        for name in sorted(set(self.patterns) - set(self.tokenizers)):
            yield f"patterns.{name}", f"no such tokenizer; there are {there}"
        if any(size < 512 for size in self.sizes):
            yield "sizes", f"found {min(self.sizes)}, must be at least 512"
        for name in ("sample_mb", "max_line_mb", "least_gain"):
            if getattr(self, name) <= 0:
                yield name, f"found {getattr(self, name)}, must be positive"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Measure every tokenizer on the same texts; the leader does all the work."""
    from megatron_jobs.runtime.files import write_json, write_text
    from megatron_jobs.text.language_sample import read_sample
    from megatron_jobs.text.tokenizer_report import markdown, page

    if not rank.leads:
        return {}
    sample = read_sample(
        config.input,
        key=config.key,
        group=config.group,
        letters=int(config.sample_mb * 1e6),
        limit=int(config.max_line_mb * 1e6),
    )
    measures = _measures(config, sample, folder)
    report: dict[str, Any] = {
        "texts": sample.count(),
        "bytes": sum(len(text.encode()) for text in sample.all()),
        "rejected": sample.rejected,
        "tokenizers": {name: measure.report() for name, measure in measures.items()},
    }
    report |= _curve(config, sample)
    write_json(folder / "report.json", report)
    write_text(folder / "report.md", markdown(report))
    write_text(folder / "report.html", page(report))
    best = {
        f"bytes_per_token_{name}": measure.total().ratios()["bytes_per_token"]
        for name, measure in measures.items()
    }
    return {"documents": sample.count(), "rejected": sample.rejected} | best


def _measures(config: Config, sample: "LanguageSample", folder: Path) -> "dict[str, Measure]":
    from megatron_jobs.runtime.progress import Progress
    from megatron_jobs.text.fertility import Measure, count_words, in_batches
    from megatron_jobs.text.tokenizer_files import read_tokenizer

    measures: dict[str, Measure] = {}
    for name, path in config.tokenizers.items():
        found = read_tokenizer(path, pattern=config.patterns.get(name))
        measures[name] = Measure(found.tokenizer, found.roles.get("unk_token"))
    progress = Progress(folder, total=sample.count(), unit="texts")
    done = 0
    for language, texts in sample.texts.items():
        for batch in in_batches(texts):
            words = sum(map(count_words, batch))
            for measure in measures.values():
                measure.add(language, batch, words=words)
            done += len(batch)
            progress.update(done)
    return measures


def _curve(config: Config, sample: "LanguageSample") -> dict[str, Any]:
    from megatron_jobs.text.vocabulary_curve import curve, suggest

    found: dict[int, float] = {}
    if config.sizes:
        texts = sample.all()
        learned = [text for place, text in enumerate(texts) if place % HELD_OUT]
        held_out = texts[::HELD_OUT]
        found = curve(learned or texts, held_out, sizes=config.sizes, pattern="gpt2")
    return {
        "curve": {str(size): ratio for size, ratio in found.items()},
        "suggested": suggest(found, least_gain=config.least_gain),
        "least_gain": config.least_gain,
    }
