"""Building the sample index of one or several token files; the reader is in sample_index.py."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from megatron_jobs.config.curriculum import Curriculum, Phase
from megatron_jobs.data.blend import SURPLUS, Blend, normalize, planned_samples
from megatron_jobs.data.curriculum import build_paced_order, pace_packed
from megatron_jobs.data.difficulty import document_scores
from megatron_jobs.data.earlier import Earlier, Given
from megatron_jobs.data.packing import PackedOrder, build_packed_order
from megatron_jobs.data.phases import PhasedBlend
from megatron_jobs.data.sample_index import NAME, VERSION
from megatron_jobs.data.source_order import SourceOrder, build_order
from megatron_jobs.data.splits import SPLITS, Split, document_ranges
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import write_json


@dataclass(frozen=True)
class Source:
    """One token file of an index."""

    prefix: Path
    tokens: TokenFile
    facts: TokenFacts
    weight: float | None = None
    """Share in the blend, in any unit; None on all sources for shares by size."""
    scores: Path | None = None
    """Numbers for a curriculum by score: a .npy, or the records that the file was made of."""

    @property
    def hashes(self) -> tuple[str, str]:
        """Of the .bin and the .idx: what makes two sources the same."""
        return (self.facts.bin_hash, self.facts.idx_hash)


@dataclass(frozen=True, kw_only=True)
class IndexPlan:
    """What an index is built from."""

    split: str
    seq_len: int
    seed: int
    samples: dict[Split, int | None]
    """Wanted of each split: 0 for none, None for one whole epoch."""
    packing: Literal["none", "best_fit"] = "none"
    """How documents become samples: laid end to end and cut, or packed."""
    curriculum: Curriculum | None = None
    """Of the train split; None for a shuffle."""
    phases: Sequence[Phase] = ()
    """Weights of the train split over the run, in place of the sources' own."""
    earlier: Path | None = None
    """An earlier index: its sources go on behind what it gave."""
    earlier_samples: int = 0
    """How many samples of its train split were taken."""


def build_sample_index(folder: Path, sources: Sequence[Source], plan: IndexPlan) -> dict[str, int]:
    """Write the index of `sources` into an empty folder; returns the samples of each split.

    Raises: UserError when a split with samples has no documents, or sources do not go together.
    """
    facts = _shared_facts(sources)
    earlier = _open_earlier(plan, facts)
    ranges = [document_ranges(plan.split, len(source.tokens)) for source in sources]
    splits: dict[str, Any] = {}
    for split in SPLITS:
        if plan.samples[split] != 0:
            parts = [by_split[split] for by_split in ranges]
            before = earlier if split == "train" else None
            splits[split] = _build_split(folder, split, sources, parts, plan=plan, earlier=before)
    write_json(
        folder / NAME,
        {
            "version": VERSION,
            "seq_len": plan.seq_len,
            "seed": plan.seed,
            "split": plan.split,
            "packing": plan.packing,
            "curriculum": plan.curriculum and plan.curriculum.model_dump(),
            **facts,
            "earlier": _describe_earlier(folder, plan, earlier),
            "sources": [_describe(folder, source) for source in sources],
            "splits": splits,
        },
    )
    return {split: splits[split]["samples"] if split in splits else 0 for split in SPLITS}


def _build_split(
    folder: Path,
    split: Split,
    sources: Sequence[Source],
    ranges: Sequence[range],
    *,
    plan: IndexPlan,
    earlier: Earlier | None,
) -> dict[str, Any]:
    """Build and save one split; what index.json says of it."""
    asked, phased = plan.samples[split], _phased_blend(plan, split)
    records: list[dict[str, Any]] = []
    needed = _wanted_samples(sources, asked) if phased is None else phased.needed()
    for place, wanted in enumerate(needed):
        source, documents = sources[place], ranges[place]
        _check_range(plan, split, source, documents)
        given = earlier and earlier.of(source.prefix, source.hashes, documents)
        if given:
            order, facts = _go_on(source, given, wanted, plan)
        else:
            pacing = plan.curriculum if split == "train" else None
            order, facts = _build_order(source, documents, wanted, plan, pacing)
            _check_order(plan, split, source, len(order))
        order.save(folder, f"{split}-{place}")
        bounds = [documents.start, documents.stop]
        first = given.first if given else 0
        records.append({"documents": bounds, **facts, "first": first, "samples": len(order)})
    samples, blend = records[0]["samples"], None
    if phased is not None or not _is_alone(sources):
        lengths = [record["samples"] for record in records]
        if phased is None:
            rule: Blend | PhasedBlend = _plan_blend(split, sources, lengths, asked)
        else:
            rule = phased.checked(lengths)
        blend, samples = rule.save(folder, split), len(rule)
    left = _save_left_out(folder, split, earlier)
    record = {"samples": samples, "asked": asked, "blend": blend, "sources": records}
    return record | {"left_out": left}


def _open_earlier(plan: IndexPlan, facts: dict[str, Any]) -> Earlier | None:
    if plan.earlier is None:
        return None
    own = {"seq_len": plan.seq_len, "packing": plan.packing, "split": plan.split, **facts}
    return Earlier(plan.earlier, plan.earlier_samples, own)


def _go_on(
    source: Source, given: Given, wanted: int | None, plan: IndexPlan
) -> tuple[SourceOrder | PackedOrder, dict[str, Any]]:
    """The order of a source behind what it gave, and what index.json says of it."""
    order = given.go_on(source.tokens, samples=wanted, seq_len=plan.seq_len, seed=plan.seed)
    if len(order) == 0:
        found = f"{source.prefix} has given all its {given.first} samples"
        raise UserError(f"tokens: {found}; give weights to go through it again, or leave it out")
    return order, {"epochs": given.epochs(order)}


def _save_left_out(folder: Path, split: Split, earlier: Earlier | None) -> list[dict[str, Any]]:
    """Keep the orders of sources that this index leaves out."""
    given = earlier.left_out() if earlier else []
    return [one.save(folder, f"{split}-left-{place}") for place, one in enumerate(given)]


def _build_order(
    source: Source,
    documents: range,
    wanted: int | None,
    plan: IndexPlan,
    pacing: Curriculum | None,
) -> tuple[SourceOrder | PackedOrder, dict[str, Any]]:
    """The order of one source, and what index.json says of it."""
    tokens, seq_len, seed = source.tokens, plan.seq_len, plan.seed
    scores = document_scores(tokens, documents, pacing, source.scores) if pacing else None
    if plan.packing == "best_fit":
        packed, facts = build_packed_order(
            tokens, documents, samples=wanted, seq_len=seq_len, seed=seed
        )
        if pacing and scores is not None:
            packed = pace_packed(packed, documents, scores, pacing, samples=wanted, seed=seed)
        return packed, {"epochs": len(packed) // facts.bins, "packing": asdict(facts)}
    if pacing and scores is not None:
        order, epochs = build_paced_order(
            tokens, documents, scores, pacing, samples=wanted, seq_len=seq_len, seed=seed
        )
    else:
        order, epochs = build_order(tokens, documents, samples=wanted, seq_len=seq_len, seed=seed)
    return order, {"epochs": epochs}


def _phased_blend(plan: IndexPlan, split: Split) -> PhasedBlend | None:
    if split != "train" or not plan.phases:
        return None
    asked = plan.samples["train"]
    if asked is None:
        raise UserError("train_samples: phases are shares of a number of samples, got none")
    return PhasedBlend.plan(plan.phases, asked)


def _plan_blend(
    split: Split, sources: Sequence[Source], lengths: Sequence[int], asked: int | None
) -> Blend:
    weights = _weights(sources)
    if weights is None:
        _check_epoch(split, asked, sum(lengths))
    return Blend.plan(lengths, weights, asked)


def _weights(sources: Sequence[Source]) -> list[float] | None:
    weights = [source.weight for source in sources if source.weight is not None]
    return weights or None


def _is_alone(sources: Sequence[Source]) -> bool:
    """A single source with a weight is a blend of one: megatron-core builds a surplus then."""
    return len(sources) == 1 and sources[0].weight is None


def _wanted_samples(sources: Sequence[Source], asked: int | None) -> list[int | None]:
    """Samples to build of each source at least; None for what one epoch gives."""
    if _is_alone(sources):
        return [asked]
    weights = _weights(sources)
    if weights is None:
        return [None] * len(sources)
    if asked is None:
        raise UserError("samples: a blend by weights needs a number for each split, got none")
    return [planned_samples(share, asked, SURPLUS) for share in normalize(weights)]


def _check_range(plan: IndexPlan, split: Split, source: Source, documents: range) -> None:
    if documents:
        return
    found = f"{plan.split} leaves {split} none of {source.prefix}'s {len(source.tokens)} documents"
    raise UserError(f"split: {found}; give it a larger share, or set {split}_samples=0")


def _check_epoch(split: Split, asked: int | None, held: int) -> None:
    """Sources are gone through again by their weights only, as in megatron-core."""
    if asked is not None and asked > held:
        found = f"{asked} are asked of sources without weights, which hold {held} in one epoch"
        raise UserError(f"{split}_samples: {found}; give weights, or ask for {held} at most")


def _check_order(plan: IndexPlan, split: Split, source: Source, samples: int) -> None:
    if samples == 0:
        found = f"one epoch of {source.prefix}'s {split} documents is less than a sample"
        raise UserError(f"seq_len: {found} of {plan.seq_len} + 1 tokens; take it shorter")


def _shared_facts(sources: Sequence[Source]) -> dict[str, Any]:
    """End of document and tokenizer, which all sources must share, and the largest vocabulary."""
    shared: dict[str, Any] = {"vocab_size": max(source.facts.vocab_size for source in sources)}
    for name in ("eod", "tokenizer_hash"):
        first = getattr(sources[0].facts, name)
        for source in sources[1:]:
            found = getattr(source.facts, name)
            if found != first:
                other = f"{sources[0].prefix} has {first}; tokenize both with one tokenizer"
                raise UserError(f"{source.prefix}: {name}: found {found}, {other}")
        shared[name] = first
    return shared


def _describe(folder: Path, source: Source) -> dict[str, Any]:
    facts = source.facts
    return {
        "prefix": _portable(source.prefix, folder),
        "weight": source.weight,
        "documents": len(source.tokens),
        "tokens": facts.tokens,
        "text_bytes": facts.text_bytes,
        "bin_hash": facts.bin_hash,
        "idx_hash": facts.idx_hash,
    }


def _describe_earlier(
    folder: Path, plan: IndexPlan, earlier: Earlier | None
) -> dict[str, Any] | None:
    if plan.earlier is None or earlier is None:
        return None
    index = _portable(plan.earlier, folder)
    return {"index": index, "identity": earlier.identity, "samples": plan.earlier_samples}


def _portable(prefix: Path, folder: Path) -> str:
    """Relative to the index where both lie in one run folder: the run can be moved then."""
    run = folder.absolute().parent.parent
    inside = prefix.absolute().is_relative_to(run)
    return os.path.relpath(prefix.absolute(), folder.absolute()) if inside else str(prefix)
