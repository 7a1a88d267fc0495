"""A model of n-grams that says how surprising a text is: Kneser-Ney smoothing, of words or tokens.

Trained on text such as is wanted; stage `filter` takes it as a rule. With the perplexities of other
documents, those of a crawl, each language is split into head, middle and tail (Wenzek et al. 2019).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import remove, whole_folder, write_json
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from megatron_jobs.text.gram_training import Vocabulary
    from megatron_jobs.text.record import Record
    from megatron_jobs.text.training_texts import TrainingTexts

    Numbered = NDArray[np.uint32]

OUTPUTS = ("perplexity",)
RESOURCES = Resources(hours=2)
LAYOUT = ("threads",)
WORD_BYTES = 80
"""Of memory for a word of the text: its hash, number, n-grams of each order, estimates, tables."""
HELD_SHARE = 0.05
"""Of that memory, for the texts that are held out."""


class Config(Settings):
    """What is learnt from, and the model's size."""

    input: tuple[InputPath, ...]
    """Files or folders of records such as are wanted."""
    judged: tuple[InputPath, ...] = ()
    """Files or folders of records such as will be judged: the quantiles of their perplexities, by
    language, go into the model's facts. Without, those of the documents held out of `input`."""
    key: str = "text"
    """Of the text, in formats with keys or columns."""
    max_record_mb: float = 50
    """Megabytes; a longer record is left out."""
    order: int = 5
    """Words in the longest n-gram, 2 to 5."""
    tokenizer: InputPath | None = None
    """Folder with a tokenizer.json, or that file, whose tokens are the words; null for words as
    they stand, in lower case, with each digit a 0 and each punctuation mark a word of its own."""
    min_count: int = 2
    """Words that occur less often are unknown: all of them share one probability evenly. Not for
    tokens."""
    held_out: float = 0.02
    """Share of the documents, by hash of their text, that is not learnt from."""
    min_documents: int = 100
    """That a language must have for quantiles of its own."""
    memory_gb: float = 8
    """Gigabytes in all, about 80 bytes a word; when there is more text, half of the documents are
    left out, again and again, by the hash of their text."""
    threads: int = 0
    """0 for as many as this process has cores. The result does not depend on it."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if not self.input:
            yield "input", "found nothing, must name at least one file or folder"
        for name, least, most in (("order", 2, 5), ("held_out", 0, 0.9)):
            if not least <= getattr(self, name) <= most:
                yield name, f"{getattr(self, name)} must be from {least} to {most}"
        for name in ("memory_gb", "max_record_mb", "min_count", "min_documents"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} must be positive"
        if self.threads < 0:
            yield "threads", f"{self.threads} is negative; 0 takes all cores"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train and write folder/perplexity; the leader does all the work, in threads."""
    if not rank.leads:
        return {}
    out = folder / "perplexity"
    remove(out)
    with whole_folder(out) as part:
        return _Work(config, folder).write(part)


class _Work:
    """One training."""

    def __init__(self, config: Config, folder: Path) -> None:
        from megatron_jobs.text.hashed_sample import HashedSample

        self.config = config
        self.texts = self._texts(config.input)
        self.judged = self._texts(config.judged) if config.judged else None
        size = self.texts.size + (self.judged.size if self.judged else 0)
        self.progress = Progress(folder, total=size, unit="bytes")
        self.done = 0
        self.sample = HashedSample(int(config.memory_gb * 1e9 / WORD_BYTES))
        self.held = HashedSample(int(config.memory_gb * 1e9 * HELD_SHARE))
        """UTF-8 bytes of what is not learnt from."""
        self.languages: dict[int, str] = {}
        """Of those held out, by key."""

    def _texts(self, inputs: Iterable[Path]) -> "TrainingTexts":
        from megatron_jobs.text.readers import ReadRules
        from megatron_jobs.text.training_texts import TrainingTexts

        rules = ReadRules(self.config.key, int(self.config.max_record_mb * 1e6))
        return TrainingTexts(inputs, rules, self._report)

    def _report(self, size: int) -> None:
        self.done += size
        self.progress.update(self.done)

    def write(self, part: Path) -> dict[str, float]:
        """Train, write the model to `part`, then its quantiles."""
        from megatron_jobs.runtime.files import read_json
        from megatron_jobs.text.gram_training import quantiles, save_grams, train
        from megatron_jobs.text.perplexity import ALL, FACTS

        words, vocabulary, size = self._words()
        threads = self.config.threads or len(os.sched_getaffinity(0))
        trained = train(words, vocabulary=size, order=self.config.order, threads=threads)
        save_grams(trained, part, words=vocabulary, facts=self._facts(len(words)))
        values = self._perplexities(part)
        facts = read_json(part / FACTS)
        facts["quantiles"] = quantiles(values, least=self.config.min_documents)
        write_json(part / FACTS, facts)
        numbers = {
            "documents": self.texts.origins.documents,
            "learnt_from": len(self.sample),
            "words": len(words),
            "vocabulary": facts["vocabulary"],
            "ngrams": sum(facts["ngrams"]),
        }
        if ALL in facts["quantiles"]:
            numbers["median_perplexity"] = facts["quantiles"][ALL]["quantiles"]["0.5"]
        return numbers

    def _words(self) -> "tuple[Numbered, Vocabulary | Path, int]":
        """Numbers of all words learnt from, what numbers them, and how many there are."""
        import numpy as np

        from megatron_jobs.text.gram_training import Vocabulary

        if self.config.tokenizer is not None:
            return self._tokens(self.config.tokenizer)
        from megatron_jobs._ngrams import word_hashes

        self._collect(lambda text: word_hashes(text, lines=True))
        arrays = [array for _, array in self.sample.sorted()]
        vocabulary = Vocabulary.of(arrays, min_count=self.config.min_count)
        numbered = [vocabulary.number(array) for array in arrays if len(vocabulary.hashes)]
        words = np.concatenate(numbered) if numbered else np.zeros(0, np.uint32)
        return words, vocabulary, vocabulary.size

    def _tokens(self, tokenizer: Path) -> "tuple[Numbered, Vocabulary | Path, int]":
        import numpy as np

        from megatron_jobs.text.encoder import load_encoder
        from megatron_jobs.text.perplexity import FIRST_WORD, TOKENIZER, token_numbers

        file = tokenizer / TOKENIZER if tokenizer.is_dir() else tokenizer
        size = load_encoder(file).vocab_size + FIRST_WORD
        self._collect(token_numbers(file))
        arrays = [array for _, array in self.sample.sorted()]
        return np.concatenate(arrays) if arrays else np.zeros(0, np.uint32), file, size

    def _collect(self, number: "Callable[[str], NDArray[Any]]") -> None:
        from megatron_jobs.text.hashed_sample import is_held_out, text_key

        for record in self.texts:
            key = text_key(record.text)
            if is_held_out(key, self.config.held_out):
                self._hold(key, record)
            elif self.sample.wants(key):
                found = number(record.text)
                if len(found):
                    self.sample.add(key, found)
        if not len(self.sample):
            raise UserError("input: found no word to learn from; give it some text")

    def _hold(self, key: int, record: "Record") -> None:
        import numpy as np

        if self.judged is None and record.text and self.held.wants(key):
            self.held.add(key, np.frombuffer(record.text.encode(), dtype=np.uint8))
            self.languages[key] = record.language

    def _others(self) -> Iterator[tuple[str, str]]:
        """(language, text) of the documents to be judged."""
        if self.judged is not None:
            yield from ((record.language, record.text) for record in self.judged)
            return
        for key, array in self.held.sorted():
            yield self.languages[key], array.tobytes().decode()

    def _perplexities(self, model: Path) -> dict[str, list[float]]:
        """Of documents to be judged, by language."""
        from megatron_jobs.text.perplexity import load_perplexity

        scorer = load_perplexity(model)
        values: dict[str, list[float]] = {}
        for language, text in self._others():
            values.setdefault(language, []).append(scorer.score(text))
        return values

    def _facts(self, words: int) -> dict[str, Any]:
        return {
            "trained_on": self.texts.origins.facts()
            | {
                "taken": len(self.sample),
                "duplicates": self.sample.duplicates,
                "sampled_share": self.sample.share,
                "words": words,
            },
            "settings": self.config.model_dump(
                mode="json", exclude={"input", "judged", "tokenizer", "threads"}
            ),
        }
