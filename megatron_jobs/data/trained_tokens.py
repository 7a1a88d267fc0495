"""How much training reads of each source of an index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_jobs.data.sample_index import load_blend, read_facts
from megatron_jobs.data.source_name import source_name, source_path
from megatron_jobs.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainedSource:
    """One source of the train split."""

    name: str
    path: Path
    """As the index stage takes it: the folder of a tokenize job, or a .bin."""
    tokens: int
    """That its token file holds, in all splits."""
    text_bytes: int | None
    """Of its documents; None when nobody said."""
    samples: int
    """Train samples that are of it."""
    trained: float
    """Tokens that training reads of it, padding left out."""
    times_read: float
    """How often training reads a token of its train split, on average: an estimate, as if all its
    documents were of one length."""


def trained_sources(folder: Path) -> list[TrainedSource]:
    """The sources of an index, with what training reads of them when it takes all its samples.

    Raises: UserError when the index has no train split.
    """
    facts = read_facts(folder)
    train = facts["splits"].get("train")
    if train is None:
        raise UserError(f"{folder}: has no train samples, which are what is reported")
    blend = load_blend(folder, "train", train)
    counts = [train["samples"]] if blend is None else blend.taken(train["samples"])
    return [
        _source(folder, source, order, count, facts["seq_len"])
        for source, order, count in zip(facts["sources"], train["sources"], counts, strict=True)
    ]


def _source(
    folder: Path, source: dict[str, Any], order: dict[str, Any], samples: int, seq_len: int
) -> TrainedSource:
    trained = samples * seq_len * (1 - (order.get("packing") or {}).get("padding", 0))
    first, stop = order["documents"]
    held = source["tokens"] * (stop - first) / source["documents"]
    prefix = folder.absolute() / source["prefix"]
    return TrainedSource(
        name=source_name(prefix),
        path=source_path(prefix),
        tokens=source["tokens"],
        text_bytes=source["text_bytes"],
        samples=samples,
        trained=trained,
        times_read=trained / held if held else 0.0,
    )
