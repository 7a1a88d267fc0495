"""A classifier of texts, trained on examples: quality, toxicity, domain, or any other labels.

A linear model over hashed n-grams of words. Stage `filter` takes it as a rule; all of it is in
one folder, with what it learnt from and how good it is on documents that were held out.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import remove, whole_folder
from megatron_jobs.runtime.progress import Progress
from megatron_jobs.runtime.rank import Rank

if TYPE_CHECKING:
    from megatron_jobs.text.hashed_sample import HashedSample
    from megatron_jobs.text.linear_model import Features, LinearModel
    from megatron_jobs.text.training_texts import Origins

OUTPUTS = ("classifier",)
RESOURCES = Resources(hours=1)
LAYOUT = ("threads",)
POSITIVE, NEGATIVE = "positive", "negative"
FEATURE_BYTES = 8
"""Of memory for one n-gram: in the sample, and again where they are joined."""


class Config(Settings):
    """What the labels are, what is learnt from, and how."""

    positive: tuple[InputPath, ...] = ()
    """Files or folders of records such as are wanted; with `negative`, instead of `labels`."""
    negative: tuple[InputPath, ...] = ()
    """Files or folders of records of the other kind."""
    labels: dict[str, tuple[InputPath, ...]] = Field(default_factory=dict)
    """Instead of the two: files or folders by the name of a label, two or more."""
    wanted: str = ""
    """The label whose probability is a text's score; "" for `positive`, or the first of labels."""
    key: str = "text"
    """Of the text, in formats with keys or columns."""
    max_record_mb: float = 50
    """Megabytes; a longer record is left out."""
    order: int = 2
    """Words in the longest n-gram, 1 to 5."""
    bits: int = 20
    """The n-grams are hashed to 2^bits weights, 8 to 28; 20 take 4 MB a column."""
    text_kb: float = 64
    """Kilobytes (1000 bytes) of a text that are looked at, from its beginning; also in use."""
    held_out: float = 0.1
    """Share of the documents, by hash of their text, that is not learnt from: half is for the
    calibration, half for the figures."""
    epochs: int = 20
    """Times that each document is seen; short texts, such as comments, need many."""
    rate: float = 0.1
    """AdaGrad's, at the beginning; it falls in a straight line."""
    batch: int = 64
    """Documents whose gradients are taken together."""
    balance: bool = True
    """Whether each label counts alike however many documents it has; else a score also says how
    frequent its label was."""
    memory_gb: float = 4
    """Gigabytes for the documents; when there are more, half of a label's are left out, again and
    again, by the hash of their text."""
    seed: int = 0
    """Of the order in which documents are seen."""
    threads: int = 0
    """0 for as many as this process has cores. The result does not depend on it."""

    def corpora(self) -> Mapping[str, tuple[Path, ...]]:
        """Inputs by label; of two, the wanted one is the second."""
        if not self.labels:
            return {NEGATIVE: self.negative, POSITIVE: self.positive}
        rest = {name: paths for name, paths in self.labels.items() if name != self.score_of()}
        if len(self.labels) == 2:
            return rest | {self.score_of(): self.labels[self.score_of()]}
        return self.labels

    def score_of(self) -> str:
        """The label whose probability is the score."""
        return self.wanted or next(iter(self.labels), POSITIVE)

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        names = self.labels or (POSITIVE, NEGATIVE)
        if self.labels and (self.positive or self.negative):
            yield "labels", "is given beside positive and negative; give one or the other"
        elif not self.labels and not (self.positive and self.negative):
            yield "positive", "needs files, and so does negative; or give labels"
        elif len(names) < 2 or not all(self.labels.get(name, True) for name in names):
            yield "labels", "needs two labels or more, each with files"
        if self.wanted and self.wanted not in names:
            yield "wanted", f"found {self.wanted!r}, which is no label: {', '.join(names)}"
        for name, least, most in (("order", 1, 5), ("bits", 8, 28), ("held_out", 0, 0.9)):
            if not least <= getattr(self, name) <= most:
                yield name, f"{getattr(self, name)} must be from {least} to {most}"
        for name in ("epochs", "batch", "rate", "text_kb", "memory_gb", "max_record_mb"):
            if getattr(self, name) <= 0:
                yield name, f"{getattr(self, name)} must be positive"
        if self.threads < 0:
            yield "threads", f"{self.threads} is negative; 0 takes all cores"


def describe(config: Config, resources: Resources) -> Iterator[tuple[str, str]]:
    """What the model takes."""
    columns = 1 if len(config.corpora()) == 2 else len(config.corpora())
    size = 4 * columns * 2**config.bits / 1e6
    yield "classifier", f"{', '.join(config.corpora())}; {size:.0f} MB of weights"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Train and write folder/classifier; the leader does all the work, in threads."""
    from megatron_jobs.text.linear_model import load_classifier, save_classifier

    if not rank.leads:
        return {}
    out = folder / "classifier"
    model = _train(config, folder)
    remove(out)
    with whole_folder(out) as part:
        save_classifier(model, part)
    held = load_classifier(out).facts["held_out"]
    numbers = {name: held[name] for name in ("accuracy", "auc", "log_loss") if held.get(name)}
    trained = model.facts["trained_on"].values()
    return {
        "documents": sum(origin["documents"] for origin in trained),
        "learnt_from": model.facts["learnt_from"],
        "held_out": sum(held["documents"].values()),
        **numbers,
    }


def _train(config: Config, folder: Path) -> "LinearModel":
    from megatron_jobs.text.linear_model import Features
    from megatron_jobs.text.linear_training import Documents, FitRules, build_model

    features = Features(config.bits, config.order, int(config.text_kb * 1000))
    samples, origins = _collect(config, features, folder)
    both = _remove_ambiguous(list(samples.values()))
    _check_enough(samples)
    progress = Progress(folder, total=config.epochs, unit="epochs")
    model = build_model(
        Documents.join(
            (key, label, found)
            for label, sample in enumerate(samples.values())
            for key, found in sample.sorted()
        ),
        names=list(samples),
        positive=config.score_of(),
        features=features,
        rules=FitRules(
            epochs=config.epochs,
            rate=config.rate,
            batch=config.batch,
            balance=config.balance,
            seed=config.seed,
            threads=config.threads or len(os.sched_getaffinity(0)),
        ),
        held_out=config.held_out,
        report=lambda epoch, loss: progress.update(epoch, loss=loss),
    )
    trained = {name: origins[name].facts() | _taken(sample) for name, sample in samples.items()}
    model.facts.update(trained_on=trained, in_several_labels=both)
    model.facts["settings"] = config.model_dump(
        mode="json", exclude={"positive", "negative", "labels", "threads"}
    )
    return model


def _collect(
    config: Config, features: "Features", folder: Path
) -> "tuple[dict[str, HashedSample], dict[str, Origins]]":
    """The documents of each label as features, and where they came from."""
    from megatron_jobs._ngrams import gram_buckets
    from megatron_jobs.text.hashed_sample import HashedSample, text_key
    from megatron_jobs.text.readers import ReadRules
    from megatron_jobs.text.training_texts import TrainingTexts

    rules = ReadRules(config.key, int(config.max_record_mb * 1e6))
    done = 0

    def report(size: int) -> None:
        nonlocal done
        done += size
        progress.update(done)

    corpora = config.corpora()
    texts = {name: TrainingTexts(paths, rules, report) for name, paths in corpora.items()}
    progress = Progress(folder, total=sum(text.size for text in texts.values()), unit="bytes")
    limit = int(config.memory_gb * 1e9 / FEATURE_BYTES / len(corpora))
    samples = {name: HashedSample(limit) for name in corpora}
    for name, records in texts.items():
        sample = samples[name]
        for record in records:
            key = text_key(record.text)
            if sample.wants(key):
                sample.add(key, gram_buckets(record.text, **vars(features)))
    return samples, {name: text.origins for name, text in texts.items()}


def _remove_ambiguous(samples: "list[HashedSample]") -> int:
    """Texts that have several labels teach nothing; how many there were."""
    seen: set[int] = set()
    several: set[int] = set()
    for sample in samples:
        keys = {key for key, _ in sample.sorted()}
        several |= keys & seen
        seen |= keys
    for sample in samples:
        for key in several:
            sample.remove(key)
    return len(several)


def _check_enough(samples: "dict[str, HashedSample]") -> None:
    for name, sample in samples.items():
        if not len(sample):
            raise UserError(f"{name}: found no document that no other label has; give it some text")


def _taken(sample: "HashedSample") -> dict[str, float]:
    return {
        "taken": len(sample),
        "duplicates": sample.duplicates,
        "sampled_share": sample.share,
        "ngrams": sample.items,
    }
