"""Building the sample index of one or several token files; the reader is in sample_index.py."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.config.curriculum import Curriculum
from megatron_jobs.data.blend import SURPLUS, Blend, normalize, planned_samples
from megatron_jobs.data.curriculum import build_paced_order, pace_packed
from megatron_jobs.data.difficulty import document_scores
from megatron_jobs.data.earlier import Begin, Earlier, Given, check_shared
from megatron_jobs.data.first_pass import build_first_pass
from megatron_jobs.data.given_documents import Counts
from megatron_jobs.data.index_plan import IndexPlan, Source
from megatron_jobs.data.packing import PackedOrder, build_packed_order
from megatron_jobs.data.phases import PhasedBlend
from megatron_jobs.data.sample_index import NAME, VERSION, path_from
from megatron_jobs.data.source_order import SourceOrder, build_order
from megatron_jobs.data.splits import SPLITS, Split, document_ranges
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import write_json

Order = SourceOrder | PackedOrder


@dataclass(frozen=True)
class Need:
    """How many samples of one source are built."""

    planned: int | None
    """As megatron-core plans them; None for what one epoch gives."""
    given: int = 0
    """By the blend, which may ask for more than was planned."""


def build_sample_index(folder: Path, sources: Sequence[Source], plan: IndexPlan) -> dict[str, int]:
    """Write the index of `sources` into an empty folder; returns the samples of each split.

    Raises: UserError when a split with samples has no documents, or sources do not go together.
    """
    facts = _shared_facts(sources)
    ranges = [document_ranges(plan.split, len(source.tokens)) for source in sources]
    earlier = _open_earlier(plan, facts)
    begins = _begins(plan, earlier, sources, [by_split["train"] for by_split in ranges])
    splits: dict[str, Any] = {}
    for split in SPLITS:
        if plan.samples[split] != 0:
            parts = [by_split[split] for by_split in ranges]
            before = begins if split == "train" else []
            splits[split] = _build_split(folder, split, sources, parts, plan=plan, begins=before)
    if earlier and "train" in splits:
        splits["train"]["left_out"] = _save_left_out(folder, earlier.left_out(sources))
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
            "earlier": earlier and _describe_earlier(folder, plan, sources, earlier, begins),
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
    begins: Sequence[Begin],
) -> dict[str, Any]:
    """Build and save one split; what index.json says of it."""
    asked, records = plan.samples[split], []
    rule = _plan_blend(plan, split, sources)
    for place, need in enumerate(_needs(plan, split, sources, rule)):
        source, documents = sources[place], ranges[place]
        _check_range(plan, split, source, documents)
        if begins and (given := begins[place].given):
            order, facts = _go_on(source, given, need, plan)
        else:
            times = begins[place].times if begins else None
            order, facts = _begin_order(split, source, documents, need, plan=plan, times=times)
            _check_order(plan, split, source, len(order))
        assert len(order) >= need.given, f"{source.prefix}: {len(order)} samples of {need}"
        order.save(folder, f"{split}-{place}")
        bounds = [documents.start, documents.stop]
        records.append({"documents": bounds, "first": 0, **facts, "samples": len(order)})
    lengths = [record["samples"] for record in records]
    if rule is None and len(sources) > 1:
        _check_epoch(split, asked, sum(lengths))
        rule = Blend.by_size(lengths, asked)
    blend, samples = (rule.save(folder, split), len(rule)) if rule else (None, lengths[0])
    record = {"samples": samples, "asked": asked, "blend": blend, "sources": records}
    return record | {"left_out": []}


def _open_earlier(plan: IndexPlan, facts: dict[str, Any]) -> Earlier | None:
    if plan.earlier is None:
        return None
    own = {"seq_len": plan.seq_len, "packing": plan.packing, "split": plan.split, **facts}
    return Earlier(plan.earlier, plan.earlier_samples, own)


def _begins(
    plan: IndexPlan, earlier: Earlier | None, sources: Sequence[Source], train: Sequence[range]
) -> list[Begin]:
    """How the train order of each source begins; nothing without an earlier index."""
    if earlier is None:
        return []
    begins = earlier.begin(sources, train)
    if not plan.only_new_sources:
        check_shared(earlier.folder, begins)
    return begins


def _go_on(
    source: Source, given: Given, need: Need, plan: IndexPlan
) -> tuple[Order, dict[str, Any]]:
    """The order of a source behind what it gave, and what index.json says of it."""
    wanted = None if need.planned is None else max(need.planned, need.given)
    order = given.go_on(source.tokens, samples=wanted, seq_len=plan.seq_len, seed=plan.seed)
    if len(order) == 0:
        found = f"{source.prefix} has given all its {given.first} samples"
        raise UserError(f"tokens: {found}; give weights to go through it again, or leave it out")
    facts = {"epochs": given.epochs(order), "first": given.first}
    return order, facts | ({"lead": given.lead} if given.lead else {})


def _save_left_out(folder: Path, given: Sequence[Given]) -> list[dict[str, Any]]:
    """Keep the orders of sources that this index leaves out."""
    return [one.save(folder, f"train-left-{place}") for place, one in enumerate(given)]


def _begin_order(
    split: Split,
    source: Source,
    documents: range,
    need: Need,
    *,
    plan: IndexPlan,
    times: Counts | None,
) -> tuple[Order, dict[str, Any]]:
    """The order of a source from its first sample on, and what index.json says of it."""
    if times is not None:
        wanted = None if need.planned is None else max(need.planned, need.given)
        return build_first_pass(source.tokens, documents, times, samples=wanted, plan=plan)
    pacing = plan.curriculum if split == "train" else None
    order, facts = _build_order(source, documents, need.planned, plan, pacing)
    if len(order) < need.given:  # here megatron-core gives up
        return _build_order(source, documents, need.given, plan, pacing)
    return order, facts


def _build_order(
    source: Source,
    documents: range,
    wanted: int | None,
    plan: IndexPlan,
    pacing: Curriculum | None,
) -> tuple[Order, dict[str, Any]]:
    """The order of one source, and what index.json says of it."""
    tokens, seq_len, seed = source.tokens, plan.seq_len, plan.seed
    scores = document_scores(tokens, documents, pacing, source.scores) if pacing else None
    said: dict[str, Any] = {}
    if pacing and pacing.by == "score" and scores is not None:
        said["scores_hash"] = hashlib.sha256(scores.tobytes()).hexdigest()
    if plan.packing == "best_fit":
        packed, facts = build_packed_order(
            tokens, documents, samples=wanted, seq_len=seq_len, seed=seed
        )
        if pacing and scores is not None:
            packed = pace_packed(packed, documents, scores, pacing, samples=wanted, seed=seed)
        said |= {"epochs": len(packed) // facts.bins, "packing": asdict(facts)}
        return packed, said
    if pacing and scores is not None:
        order, epochs = build_paced_order(
            tokens, documents, scores, pacing, samples=wanted, seq_len=seq_len, seed=seed
        )
    else:
        order, epochs = build_order(tokens, documents, samples=wanted, seq_len=seq_len, seed=seed)
    return order, said | {"epochs": epochs}


def _plan_blend(
    plan: IndexPlan, split: Split, sources: Sequence[Source]
) -> Blend | PhasedBlend | None:
    """The rule of a split, by weights; None where there are none."""
    asked, weights = plan.samples[split], _weights(sources)
    if split == "train" and plan.phases:
        if asked is None:
            raise UserError("train_samples: phases are shares of a number of samples, got none")
        return PhasedBlend.plan(plan.phases, asked)
    if weights is None:
        return None
    if asked is None:
        raise UserError("samples: a blend by weights needs a number for each split, got none")
    return Blend.by_weights(weights, asked)


def _needs(
    plan: IndexPlan, split: Split, sources: Sequence[Source], rule: Blend | PhasedBlend | None
) -> list[Need]:
    asked, weights = plan.samples[split], _weights(sources)
    if rule is None:
        return [Need(asked if len(sources) == 1 else None)] * len(sources)
    given = rule.taken(len(rule))
    if weights is None or asked is None or isinstance(rule, PhasedBlend):
        return [Need(count, count) for count in given]
    planned = [planned_samples(share, asked, SURPLUS) for share in normalize(weights)]
    return [Need(*pair) for pair in zip(planned, given, strict=True)]


def _weights(sources: Sequence[Source]) -> list[float] | None:
    weights = [source.weight for source in sources if source.weight is not None]
    return weights or None


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
        "prefix": path_from(folder, source.prefix),
        "weight": source.weight,
        "documents": len(source.tokens),
        "tokens": facts.tokens,
        "ids": len(source.tokens.ids),
        "text_bytes": facts.text_bytes,
        "bin_hash": facts.bin_hash,
        "idx_hash": facts.idx_hash,
    }


def _describe_earlier(
    folder: Path,
    plan: IndexPlan,
    sources: Sequence[Source],
    earlier: Earlier,
    begins: Sequence[Begin],
) -> dict[str, Any]:
    notes = [asdict(begin.note) for begin in begins]
    return earlier.describe(folder, plan.earlier_samples, sources) | {"sources": notes}
