"""Text to tokens: JSONL or plain text files to one token file, by several ranks in parts.

Cut into tasks, each task makes its share of the parts, and `gather` joins those of all: the result
is the same to the byte.
"""

import contextlib
import gc
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import DataError, UserError
from megatron_jobs.runtime.files import publish_folder, remove, wait_for, whole_folder
from megatron_jobs.runtime.freed_memory import keep_freed_memory
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from megatron_jobs.data.token_parts import Counts, TokenRules
    from megatron_jobs.text.encoder import Encoder
    from megatron_jobs.text.sources import Piece

OUTPUTS = ("tokens", "rejected.jsonl")
RESOURCES = Resources(ranks=2)
GATHER = Resources(hours=4)
LAYOUT = ("parts", "encoder")
FORMAT = 3
"""Of the parts; those of another format are made again."""
TOKENS, REJECTED = OUTPUTS
PUNKT = "punkt.json"
SAMPLE_LETTERS = 1 << 15
"""Of the input, on which each rank compares encoders: 15 ms of work."""
SAMPLED = 8
"""Places that they are taken from."""
PUNKT_LETTERS = 1 << 24
KEPT_BYTES = 1 << 26
"""Of the memory of a batch that was encoded, for the next one."""
LONGEST_WAIT = 7 * 86400.0
"""Seconds; a rank that dies ends the job long before."""


class Config(Settings):
    """What is tokenized, and how."""

    input: list[InputPath]
    """Files or folders: .jsonl or .json with an object a line, .txt with a document a file; .gz
    and .zst of each."""
    tokenizer: InputPath
    """Folder with a tokenizer.json, or that file."""
    key: str = "text"
    """Of the text in a line's object."""
    append_eod: bool = True
    """End each document with the end-of-document token."""
    eod: str | None = None
    """That token; null for the tokenizer's eos_token."""
    encoder: Literal["auto", "gigatoken", "tokenizers"] = "auto"
    """The library that encodes. auto takes gigatoken, 50 times as fast, where it gives the ids of
    tokenizers: that is tried at the start on texts hard to encode, and on some of the input."""
    names: bool = True
    """Keep the name of each document (its record's "id", else FILE:LINE) beside the tokens, so that
    the ledger knows which document is which."""
    special_in_text: bool = False
    """Whether the name of a special token in a text becomes that token, or stays text."""
    template: bool = False
    """Whether the tokenizer's own template adds its tokens (such as a beginning) to each text."""
    split_sentences: bool = False
    """Make each sentence a sequence of its own, and a document of several."""
    keep_newlines: bool = False
    """Leave the white space between sentences at their ends, instead of dropping it."""
    punkt: InputPath | None = None
    """What finds the sentences: a punkt.json of an earlier job, or a language's folder of nltk's
    punkt_tab; null to learn it from the input (its first 16 million letters)."""
    parts: int = 0
    """Parts that are made apart and not made again after a kill; 0 for such of 16 to 64 MiB. The
    result does not depend on it."""
    max_line_mb: float = 50
    """Megabytes (10^6 bytes); a longer line is put aside. Where tokenizers encode, it takes some
    115 times a line's size in memory: 6 GB for one of 50 MB; gigatoken takes some 20."""
    max_rejected_share: float = 0.05
    """Of all lines; when more are put aside the job fails and says which."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"
        if self.parts < 0:
            yield "parts", f"{self.parts} is negative; 0 takes such of 16 to 64 MiB"
        if self.max_line_mb <= 0:
            yield "max_line_mb", f"{self.max_line_mb} leaves no line, must be positive"
        if not 0 <= self.max_rejected_share <= 1:
            yield "max_rejected_share", f"{self.max_rejected_share} must be from 0 to 1"
        if not self.split_sentences and (self.keep_newlines or self.punkt):
            yield "split_sentences", "is false: keep_newlines and punkt would do nothing"


def promise(config: Config, inputs: Mapping[str, Facts]) -> Facts:
    """The tokenizer's vocabulary."""
    return inputs.get("tokenizer", {})


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Make this rank's parts of this task; the leader joins them into folder/tokens.

    A task of several leaves its parts in folder/tokens, for `gather`.
    """
    out = folder / TOKENS
    if not out.exists():
        work = _Work(config, folder, rank)
        work.claims.begin()
        if not rank.leads:
            work.make_parts()
        elif rank.tasks == 1:
            work.make_and_join(out)
        else:
            work.make_all_parts()
            work.leave_parts(out)
    if not rank.leads:
        return {}
    return _numbers(out) if rank.tasks == 1 else _task_numbers(out)


def gather(config: Config, folder: Path, tasks: list[Path]) -> dict[str, float]:
    """Join the parts of all tasks into folder/tokens."""
    out = folder / TOKENS
    if not out.exists():
        _Work(config, folder, Rank(tasks=len(tasks))).gather([task / TOKENS for task in tasks], out)
    return _numbers(out)


def preload(config: Config) -> None:
    """Load the tokenizer and all modules now: ranks forked later need not do it again."""
    with _without_collection():
        from megatron_jobs.data import token_join  # noqa: F401  (only to be there)
        from megatron_jobs.text.bulk import preload

        encoder = _load(config)
        if config.encoder != "tokenizers":
            preload(encoder)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """What is made inside stays: nothing of it is looked through for garbage, now or later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _load(config: Config) -> "Encoder":
    """The tokenizer."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # ranks are forked, and are parallel enough
    file = config.tokenizer / "tokenizer.json" if config.tokenizer.is_dir() else config.tokenizer
    stamp = file.stat().st_mtime_ns if file.is_file() else 0
    asked = (config.tokenizer, config.eod, config.special_in_text, config.template)
    encoder = _loaded(*asked, stamp)
    if config.append_eod and encoder.eod is None:
        found = f"{config.tokenizer} names no eos_token"
        raise UserError(f"eod: {found}; name the token that ends a document, or append_eod=false")
    return encoder


@lru_cache(maxsize=1)
def _loaded(path: Path, eod: str | None, special: bool, template: bool, _stamp: int) -> "Encoder":
    from megatron_jobs.text.encoder import load_encoder

    return load_encoder(path, eod=eod, special_in_text=special, template=template)


class _Work:
    """The parts of one tokenize job: a function of its settings and inputs, equal on all ranks."""

    def __init__(self, config: Config, folder: Path, rank: Rank) -> None:
        from megatron_jobs.data.part_claims import Claims
        from megatron_jobs.text.sources import cut, default_parts, text_files

        self.config, self.rank, self.folder = config, rank, folder
        self.files = text_files(config.input)
        self.encoder = _load(config)
        count = max(config.parts or default_parts(self.files), rank.tasks)
        self.whole_plan = cut(self.files, count)
        first, end = (count * task // rank.tasks for task in (rank.task, rank.task + 1))
        self.plan = self.whole_plan[first:end]
        self.home = folder / f"parts-{self._key()}"
        self.parts = [self.home / f"part-{i:06d}" for i in range(first, end)]
        self.claims = Claims(self.home, rank)
        self.progress = Progress(folder, total=self._size(self.plan), unit="bytes")

    def _key(self) -> str:
        """Names the folder of the parts: those of other settings or inputs are not gone on with."""
        left_out = {"max_rejected_share", "parts", "encoder"}
        settings = self.config.model_dump(mode="json", exclude=left_out)
        stats = [(str(file.path), file.size, file.path.stat().st_mtime_ns) for file in self.files]
        made_of = [FORMAT, settings, len(self.whole_plan), stats, self.encoder.hash]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]

    def _rules(self) -> "TokenRules":
        from megatron_jobs.data.token_parts import TokenRules
        from megatron_jobs.text.bulk import bulk_encoder

        bulk = bulk_encoder(self.encoder, self.config.encoder, self._sample)
        if self.rank.leads:
            print(f"encoder: {bulk.name}" + (f" (gigatoken: {bulk.why})" if bulk.why else ""))
        return TokenRules(
            encoder=self.encoder,
            bulk=bulk,
            key=self.config.key,
            limit=self.limit,
            append_eod=self.config.append_eod,
            names=self.config.names,
            sentences=self._splitter() if self.config.split_sentences else None,
        )

    @property
    def limit(self) -> int:
        """Bytes of the longest line."""
        return int(self.config.max_line_mb * 1e6)

    def _sample(self) -> "Iterator[str]":
        """Some of the text of this rank's parts."""
        from megatron_jobs.text.documents import first_texts

        mine = [piece for part in self.plan[self.rank.index :: self.rank.world] for piece in part]
        for piece in mine[:: max(1, len(mine) // SAMPLED)][:SAMPLED]:
            share = SAMPLE_LETTERS // SAMPLED
            yield from first_texts(
                [piece], share, key=self.config.key, limit=self.limit, most=share
            )

    def _splitter(self) -> Callable[[str], list[str]]:
        """Cuts texts into sentences; the leader learns how, unless that is given."""
        from megatron_jobs.text.sentences import SentenceSplitter, load_punkt

        model = self.config.punkt or self.home / PUNKT
        if not model.exists() and self.rank.leads:
            self._learn_sentences(model)
        wait_for(model.exists, f"the leader to write {model}", seconds=LONGEST_WAIT)
        return SentenceSplitter(load_punkt(model), keep_space=self.config.keep_newlines).split

    def _learn_sentences(self, model: Path) -> None:
        from megatron_jobs.text.documents import first_texts
        from megatron_jobs.text.sentences import save_punkt, train_punkt
        from megatron_jobs.text.sources import Piece

        whole = (Piece(file, 0, file.size) for file in self.files)
        texts = first_texts(whole, PUNKT_LETTERS, key=self.config.key, limit=self.limit)
        save_punkt(train_punkt(texts), model)

    def make_parts(self) -> None:
        """Make parts that no other rank makes, until none is left."""
        from megatron_jobs.data.token_parts import make_part, part_is_whole

        keep_freed_memory(KEPT_BYTES)
        rules = self._rules()
        for part, pieces in zip(self.parts, self.plan, strict=True):
            if not self.claims.take(part):
                continue
            if not part_is_whole(part):
                remove(part)
                done = self._bytes_done() if self.rank.leads else 0
                make_part(part, pieces, rules, partial(self._report, done))
            self.claims.note_made(part)
        self.claims.note_end()

    def make_all_parts(self) -> None:
        """The same; return when every rank has done so."""
        self.make_parts()
        others = "the other ranks' parts"
        wait_for(self.claims.all_ended, others, seconds=LONGEST_WAIT, every=0.02)
        self.progress.update(self.progress.total)

    def make_and_join(self, out: Path) -> None:
        """The same; parts are joined while others are being made, and then they are not needed."""
        from megatron_jobs.data.token_join import merged_as_made

        with (
            whole_folder(out) as unfinished,
            merged_as_made(self.parts, self.claims.is_made, unfinished) as merged,
        ):
            self.make_all_parts()
            self._join(unfinished, merged)
        remove(self.home)

    def leave_parts(self, out: Path) -> None:
        """Of one task of several: put the parts where `gather` looks for them.

        The line numbers in rejected.jsonl are those in what this task has read of a file.
        """
        from megatron_jobs.data.part_claims import remove_claims
        from megatron_jobs.data.token_join import join_rejects

        join_rejects(self.parts, self.plan, self.folder / REJECTED)
        remove_claims(self.home)
        publish_folder(self.home, out)

    def gather(self, tasks: list[Path], out: Path) -> None:
        """Join the parts of all tasks."""
        count = len(self.whole_plan)
        bounds = [count * task // len(tasks) for task in range(len(tasks) + 1)]
        self.plan = self.whole_plan
        self.parts = [
            task / f"part-{i:06d}"
            for task, (first, end) in zip(tasks, pairwise(bounds), strict=True)
            for i in range(first, end)
        ]
        missing = [part for part in self.parts if not part.exists()]
        if missing:
            cure = "the input is not what it was; run the tasks again"
            raise DataError(f"{missing[0]}: no such part ({len(missing)} are missing); {cure}")
        self.home = tasks[0]
        with whole_folder(out) as unfinished:
            self._join(unfinished, None)

    def _join(self, unfinished: Path, merged: Callable[[], str] | None) -> None:
        """Write rejected.jsonl, judge it, and join what is not yet `merged`."""
        from megatron_jobs.data.token_join import count_parts, join_rejects, join_tokens

        rejected = self.folder / REJECTED
        examples = join_rejects(self.parts, self.plan, rejected)
        self._judge(count_parts(self.parts), examples, rejected)
        join_tokens(self.parts, self.plan, unfinished, self.encoder, merged=merged)
        if (self.home / PUNKT).exists():
            shutil.copy(self.home / PUNKT, unfinished)

    def _judge(self, counts: "Counts", examples: list[str], rejected: Path) -> None:
        """Raise UserError when too many lines, or all, were put aside."""
        from megatron_jobs.data.token_join import count_reasons

        lines = counts.documents + counts.rejected
        if not lines:
            raise UserError("input: found no document in it; give it some text")
        if counts.damaged:
            print(f"packed files are damaged in {counts.damaged} places: see {rejected}")
        share = counts.rejected / lines
        if counts.documents and share <= self.config.max_rejected_share:
            return
        reasons = ", ".join(f"{n} {reason}" for reason, n in count_reasons(self.parts).items())
        found = f"{counts.rejected} of {lines} lines are no documents ({reasons})"
        rule = f"at most {self.config.max_rejected_share:.1%} may be (max_rejected_share)"
        first = "".join(f"\n  {example}" for example in examples)
        raise UserError(f"input: {found}, {rule}; all are in {rejected}, the first:{first}")

    def _bytes_done(self) -> int:
        """About so many: parts are of about one size."""
        return self.progress.total * self.claims.made() // len(self.parts)

    @staticmethod
    def _size(plan: "list[list[Piece]]") -> int:
        return sum(piece.size for pieces in plan for piece in pieces)

    def _report(self, before: int, done: int) -> None:
        if self.rank.leads:
            self.progress.update(before + done)


def _numbers(out: Path) -> dict[str, float]:
    from megatron_jobs.data.token_facts import TokenFacts

    facts = TokenFacts.read(out / TOKENS)
    rejected, text_bytes = facts.rejected or 0, facts.text_bytes or 0
    return {
        "lines": facts.documents + rejected,
        "documents": facts.documents,
        "rejected": rejected,
        "damaged": facts.damaged or 0,
        "tokens": facts.tokens,
        "text_bytes": text_bytes,
        "bytes_per_token": text_bytes / facts.tokens,
    }


def _task_numbers(out: Path) -> dict[str, float]:
    from megatron_jobs.data.token_join import count_parts

    counts = count_parts(sorted(out.glob("part-??????")))
    return {"lines": counts.documents + counts.rejected, **vars(counts)}
