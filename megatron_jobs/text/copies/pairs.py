"""Pairs that were found, as a person wants to see them: their texts, and how alike they are."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.match import PartitionFacts
from megatron_jobs.text.copies.recall import BINS, estimated_recall
from megatron_jobs.text.copies.store import Fingerprints
from megatron_jobs.text.copies.texts import read_texts

HEAD = 200
"""Letters of a text that are shown."""
RECALL_ABOVE = (0.7, 0.8, 0.9)


def pair_report(
    prints: Fingerprints, facts: Sequence[PartitionFacts], *, examples: int
) -> dict[str, Any]:
    """Similarities of the pairs found, the estimated recall, and examples."""
    shared = np.sum([fact.shared or [0.0] * BINS for fact in facts], axis=0)
    settings = prints.settings
    recall: dict[str, float | None] = {}
    if settings.method == "minhash":
        for least in RECALL_ABOVE:
            sizes = {"bands": settings.bands, "rows": settings.rows}
            recall[f"{least:g}"] = estimated_recall(shared, **sizes, least=least)
    pairs = {tuple(pair) for fact in facts for pair in fact.examples}
    shown = sorted(pairs)[:examples]
    return {
        "method": settings.method,
        "shared_keys_by_similarity": [round(value, 1) for value in shared.tolist()],
        "estimated_recall": recall.get(f"{RECALL_ABOVE[0]:g}"),
        "estimated_recall_above": recall,
        "examples": [] if settings.of_spans else _examples(prints, shown),
    }


def _examples(prints: Fingerprints, pairs: Sequence[tuple[float, ...]]) -> list[dict[str, Any]]:
    if not pairs:
        return []
    numbers = np.array([number for pair in pairs for number in pair[1:3]], np.int64)
    texts = read_texts(prints, numbers)
    shingles = make_shingles(prints.settings)
    estimate = {"minhash": "estimated_jaccard", "simhash": "equal_bits"}.get(prints.settings.method)
    shown = []
    for _, high, low, nearness in pairs:
        one, other = texts[int(low)], texts[int(high)]
        pair: dict[str, Any] = {
            "ids": [one.id, other.id],
            "texts": [one.text[:HEAD], other.text[:HEAD]],
            "jaccard": round(shingles.jaccard(one.text, other.text), 4),
        }
        if estimate:
            pair[estimate] = round(nearness + (64 if estimate == "equal_bits" else 0), 4)
        shown.append(pair)
    return shown
