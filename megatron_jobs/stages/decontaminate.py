"""Takes out what an evaluation would ask, word for word or, by an encoder, in other words."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import documents
from megatron_jobs.stages.documents import DocumentSettings, gather_documents, run_documents

if TYPE_CHECKING:
    from megatron_jobs.text.overlap import Decontamination, EvaluationPhrases, Owner
    from megatron_jobs.text.passes import Treatment
    from megatron_jobs.text.record import Record

OUTPUTS = (*documents.OUTPUTS, "hits")
RESOURCES = Resources(ranks=2)
WHOLE_FILE_BYTES = 1 << 40


class EvaluationSet(Settings):
    """Questions and answers that must not be trained on."""

    name: str
    """As it is told in the hits."""
    input: list[InputPath]
    """Files or folders of any format that can be read."""
    keys: tuple[str, ...] = ("text",)
    """The texts of an item, such as [question, choices, answer]; each is looked for by itself,
    lists text by text. A dotted name looks into objects."""
    id_key: str = "id"
    """What names an item in the hits; without it FILE:LINE does."""


class Embedding(Settings):
    """How documents are found that ask the same in other words.

    Each run of whole sentences is compared with each text of an item. With all-MiniLM-L6-v2 what
    says the same has a cosine of 0.78 to 0.96, what says something else 0.57 at most; but half of
    the questions that ask in the same way for another fact are found too. A core does some 6 kB/s:
    choose a small `unit_mb`, or ranks with GPUs.
    """

    model: InputPath
    """Folder of a sentence encoder of Hugging Face form (config.json, weights, tokenizer), such as
    all-MiniLM-L6-v2. A vector is the mean of the last hidden states, or the first of them where
    1_Pooling/config.json says so."""
    min_cosine: float = 0.75
    """From which sentences of a document are like a text of an item."""
    window_words: int = 64
    """Of a document the most words that are compared at once; longer sentences are cut, and so are
    longer texts of items."""
    batch_size: int = 64
    """Windows that the encoder computes together."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work, and a folder that is there but holds no encoder."""
        from megatron_jobs.infer.encoder_folder import encoder_problem

        if self.model.exists() and (wrong := encoder_problem(self.model)):
            yield "model", wrong
        if not 0 < self.min_cosine <= 1:
            yield "min_cosine", f"{self.min_cosine} must be above 0 and at most 1"
        for name in ("window_words", "batch_size"):
            if getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} must be at least 1"


class Config(DocumentSettings):
    """Which evaluation sets, and what counts."""

    against: list[EvaluationSet]
    """The evaluation sets."""
    ngram: int = 13
    """Words of a phrase; case and punctuation do not count."""
    least_words: int = 8
    """A text of an item with less than `ngram` words, but as many as this, is one phrase."""
    least_hits: int = 1
    """Different phrases that make a document contaminated."""
    action: Literal["reject", "cut"] = "reject"
    """Whether a contaminated document is rejected, or its phrases are cut out."""
    margin: int = 0
    """Words that are cut out with a phrase on both sides; GPT-3 took 200 letters, some 35 words."""
    embedding: Embedding | None = None
    """Also looks for what is asked in other words; null does not. Rejects by
    decontaminate.embedding what holds no phrase."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        yield from super().problems()
        if self.embedding is not None and self.action == "cut":
            yield "action", "cut is of phrases; documents that embedding finds can be rejected only"
        if not self.against:
            yield "against", "found nothing, must name at least one evaluation set"
        if not 1 <= self.least_words <= self.ngram:
            yield "least_words", f"{self.least_words} must be from 1 to ngram = {self.ngram}"
        if self.least_hits < 1:
            yield "least_hits", f"{self.least_hits} must be at least 1"
        if self.margin < 0:
            yield "margin", f"{self.margin} is negative"
        if self.margin and self.action == "reject":
            yield "margin", "does nothing when contaminated documents are rejected"
        for place, given in enumerate(self.against):
            if not given.keys or not given.input:
                yield f"against.{place}", "must name at least one input and one key"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Treat this rank's units; hits go to folder/hits."""
    return run_documents(config, rank, folder, partial(_make, config, rank), notes="hits")


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Put the tasks' outputs together."""
    return gather_documents(config, folder, tasks, notes="hits")


def _make(config: Config, rank: Rank) -> "Treatment":
    from megatron_jobs.text.overlap import Decontamination

    phrases = Decontamination(
        read_phrases(config),
        least_hits=config.least_hits,
        cut=config.action == "cut",
        margin=config.margin,
    )
    if config.embedding is None:
        return phrases
    return _with_encoder(config.embedding, _long_texts(config), phrases, rank)


def _with_encoder(
    wished: Embedding,
    texts: "list[tuple[Owner, str]]",
    phrases: "Decontamination",
    rank: Rank,
) -> "Treatment":
    from megatron_jobs.infer.embedding import TextEncoder
    from megatron_jobs.parallel.device import use_local_device
    from megatron_jobs.text.paraphrases import EmbeddingDecontamination, EvaluationTexts

    use_local_device(rank.local)
    embed = TextEncoder(wished.model, batch=wished.batch_size).embed
    known = EvaluationTexts(
        texts, embed, longest=wished.window_words, least_cosine=wished.min_cosine
    )
    return EmbeddingDecontamination(phrases, known)


def _long_texts(config: Config) -> "list[tuple[Owner, str]]":
    """Texts of items of `least_words` or more: "yes" is like too many others."""
    from megatron_jobs._overlap import words

    return [
        (owner, text)
        for given in config.against
        for owner, texts in _asked(given)
        for text in texts
        if len(words(text)) >= config.least_words
    ]


def read_phrases(config: Config) -> "EvaluationPhrases":
    """The phrases of all sets; UserError for a set without any."""
    from megatron_jobs.text.overlap import EvaluationPhrases

    known = EvaluationPhrases(config.ngram, config.least_words)
    for given in config.against:
        before = len(known.phrases)
        for owner, texts in _asked(given):
            known.add(owner, texts)
        if len(known.phrases) == before:
            found = f"{given.name} holds no text of {config.least_words} words"
            raise UserError(f"against: {found} under {', '.join(given.keys)}; see its keys")
    return known


def _asked(given: EvaluationSet) -> "Iterator[tuple[Owner, list[str]]]":
    """The texts of each item of a set."""
    from megatron_jobs.text.overlap import Owner

    for record in _items(given):
        item = str(_value(record, given.id_key) or record.id)
        yield Owner(given.name, item), list(_texts(record, given.keys))


def _items(given: EvaluationSet) -> "Iterator[Record]":
    from megatron_jobs.text.readers import ReadRules, cut_units, input_files, read_unit
    from megatron_jobs.text.record import Record
    from megatron_jobs.text.shards import Skipped

    rules = ReadRules(key="")
    for unit in cut_units(input_files(given.input), WHOLE_FILE_BYTES):
        for item in read_unit(unit, rules):
            if isinstance(item, Skipped):
                continue
            if not isinstance(item, Record):
                reason = f"{item.reason}; an evaluation set must be read whole"
                raise UserError(f"against: {given.name}: {item.place}: {reason}")
            yield item


def _texts(record: "Record", keys: tuple[str, ...]) -> Iterator[str]:
    for key in keys:
        yield from _strings(_value(record, key))


def _strings(value: Any) -> Iterator[str]:
    """Every text in a value of JSON."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from _strings(part)


def _value(record: "Record", key: str) -> Any:
    """What stands under a dotted name in the object a record was read from."""
    named = ("id", "text", "source", "licence", "url", "date", "language")
    fields = {name: value for name in named if (value := getattr(record, name))}
    found: Any = fields | record.metadata
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
