"""Text to tokens: JSONL or plain text files to one token file, by several ranks in parts."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import remove, wait_for, whole_folder
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import Facts

if TYPE_CHECKING:
    from megatron_jobs.data.token_facts import TokenFacts
    from megatron_jobs.data.token_parts import Counts, TokenRules
    from megatron_jobs.text.encoder import Encoder

OUTPUTS = ("tokens", "rejected.jsonl")
RESOURCES = Resources(ranks=2)
FORMAT = 1
"""Of the parts; those of another format are made again."""
PUNKT = "punkt.json"
PUNKT_LETTERS = 1 << 24
LONGEST_WAIT = 7 * 86400.0
"""Seconds; a rank that dies ends the job long before."""


class Config(Settings):
    """What is tokenized, and how."""

    input: list[InputPath]
    """Files or folders: .jsonl or .json with an object a line, .txt with a document a file; .gz
    of each."""
    tokenizer: InputPath
    """Folder with a tokenizer.json, or that file."""
    key: str = "text"
    """Of the text in a line's object."""
    append_eod: bool = True
    """End each document with the end-of-document token."""
    eod: str | None = None
    """That token; null for the tokenizer's eos_token."""
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
    """Parts that are made apart and not made again after a kill; 0 for one per 64 MiB. The result
    does not depend on it."""
    max_line_mb: float = 50
    """Megabytes (10^6 bytes); a longer line is put aside. Encoding takes some 115 times a line's
    size in memory: 6 GB for one of 50 MB."""
    max_rejected_share: float = 0.05
    """Of all lines; when more are put aside the job fails and says which."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"
        if self.parts < 0:
            yield "parts", f"{self.parts} is negative; 0 takes one per 64 MiB"
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
    """Make this rank's parts; the leader joins them into folder/tokens."""
    from megatron_jobs.data.token_facts import TokenFacts
    from megatron_jobs.data.token_parts import TOKENS

    out = folder / "tokens"
    if not out.exists():
        work = _Work(config, rank, folder)
        work.make_parts(out)
        if rank.leads:
            work.wait_for_parts()
            work.join(out)
    return _numbers(TokenFacts.read(out / TOKENS)) if rank.leads else {}


class _Work:
    """The parts of one tokenize job: a function of its settings and inputs, equal on all ranks."""

    def __init__(self, config: Config, rank: Rank, folder: Path) -> None:
        from megatron_jobs.text.sources import cut, default_parts, text_files

        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # ranks are forked, and are parallel enough
        self.config, self.rank, self.folder = config, rank, folder
        self.files = text_files(config.input)
        self.plan = cut(self.files, config.parts or default_parts(self.files))
        self.encoder = _load_encoder(config)
        self.home = folder / f"parts-{self._key()}"
        self.parts = [self.home / f"part-{i:06d}" for i in range(len(self.plan))]
        self.progress = Progress(folder, total=sum(f.size for f in self.files), unit="bytes")

    def _key(self) -> str:
        """Names the folder of the parts: those of other settings or inputs are not gone on with."""
        settings = self.config.model_dump(mode="json", exclude={"max_rejected_share", "parts"})
        stats = [(str(file.path), file.size, file.path.stat().st_mtime_ns) for file in self.files]
        made_of = [FORMAT, settings, len(self.plan), stats, self.encoder.hash]
        return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:12]

    def _rules(self) -> "TokenRules":
        from megatron_jobs.data.token_parts import TokenRules

        return TokenRules(
            encoder=self.encoder,
            key=self.config.key,
            limit=self.limit,
            append_eod=self.config.append_eod,
            sentences=self._splitter() if self.config.split_sentences else None,
        )

    @property
    def limit(self) -> int:
        """Bytes of the longest line."""
        return int(self.config.max_line_mb * 1e6)

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

        texts = first_texts(self.files, PUNKT_LETTERS, key=self.config.key, limit=self.limit)
        save_punkt(train_punkt(texts), model)

    def make_parts(self, out: Path) -> None:
        """Make the parts of this rank that are not there yet."""
        from megatron_jobs.data.token_parts import make_part

        rules = self._rules()
        for i in range(self.rank.index, len(self.plan), self.rank.world):
            # the leader removes parts only after `out` is there
            if self.parts[i].exists() or out.exists():
                continue
            done = self._bytes_done() if self.rank.leads else 0
            make_part(self.parts[i], self.plan[i], rules, partial(self._report, done))

    def wait_for_parts(self) -> None:
        """Return when every rank has made its parts."""
        wait_for(self._all_done, "the other ranks' parts", seconds=LONGEST_WAIT, every=0.2)

    def join(self, out: Path) -> None:
        """Write rejected.jsonl, judge it, and join the tokens; then the parts are not needed."""
        from megatron_jobs.data.token_parts import count_parts, join_rejects, join_tokens

        rejected = self.folder / "rejected.jsonl"
        examples = join_rejects(self.parts, self.plan, rejected)
        self._judge(count_parts(self.parts), examples, rejected)
        with whole_folder(out) as unfinished:
            join_tokens(self.parts, unfinished, self.encoder)
            if (self.home / PUNKT).exists():
                shutil.copy(self.home / PUNKT, unfinished)
        remove(self.home)

    def _judge(self, counts: "Counts", examples: list[str], rejected: Path) -> None:
        """Raise UserError when too many lines, or all, were put aside."""
        from megatron_jobs.data.token_parts import count_reasons

        lines = counts.documents + counts.rejected
        if not lines:
            raise UserError("input: found no document in it; give it some text")
        share = counts.rejected / lines
        if counts.documents and share <= self.config.max_rejected_share:
            return
        reasons = ", ".join(f"{n} {reason}" for reason, n in count_reasons(self.parts).items())
        found = f"{counts.rejected} of {lines} lines are no documents ({reasons})"
        rule = f"at most {self.config.max_rejected_share:.1%} may be (max_rejected_share)"
        first = "".join(f"\n  {example}" for example in examples)
        raise UserError(f"input: {found}, {rule}; all are in {rejected}, the first:{first}")

    def _bytes_done(self) -> int:
        pairs = zip(self.parts, self.plan, strict=True)
        return sum(piece.size for part, pieces in pairs if part.exists() for piece in pieces)

    def _report(self, before: int, done: int) -> None:
        if self.rank.leads:
            self.progress.update(before + done)

    def _all_done(self) -> bool:
        self.progress.update(self._bytes_done())
        return all(part.exists() for part in self.parts)


def _load_encoder(config: Config) -> "Encoder":
    from megatron_jobs.text.encoder import load_encoder

    encoder = load_encoder(
        config.tokenizer,
        eod=config.eod,
        special_in_text=config.special_in_text,
        template=config.template,
    )
    if config.append_eod and encoder.eod is None:
        found = f"{config.tokenizer} names no eos_token"
        raise UserError(f"eod: {found}; name the token that ends a document, or append_eod=false")
    return encoder


def _numbers(facts: "TokenFacts") -> dict[str, float]:
    rejected, text_bytes = facts.rejected or 0, facts.text_bytes or 0
    return {
        "documents": facts.documents,
        "rejected": rejected,
        "tokens": facts.tokens,
        "text_bytes": text_bytes,
        "bytes_per_token": text_bytes / facts.tokens,
    }
