"""Copies among texts that are all in memory."""

import numpy as np

from megatron_jobs._copies import Links, near_edges, run_stars, sort_entries
from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.methods import FingerprintSettings, make_prints


def find_copies(
    texts: list[str],
    settings: FingerprintSettings | None = None,
    *,
    threads: int = 1,
    machine: str = "",
) -> I64:
    """Of each text the number of the first of its cluster of copies; its own when it has none.

    Args:
        settings: of a method for documents, minhash by default.
        threads: of C++; the result does not depend on them.
        machine: the code that runs, as in `make_shingles`.
    Returns: int64 [texts].
    """
    settings = settings or FingerprintSettings()
    assert not settings.of_spans, f"{settings.method} finds no copies of documents"
    prints = make_prints(settings, threads=threads, machine=machine)(texts)
    keys = prints.keys[prints.known].ravel()
    numbers = np.repeat(np.flatnonzero(prints.known), prints.keys.shape[1])
    sort_entries(keys, numbers, threads=threads)
    if settings.method == "minhash":
        edges = run_stars(keys, numbers)
    else:
        edges = near_edges(
            keys,
            numbers,
            rows=numbers,
            signatures=prints.signatures,
            measure=settings.measure,
            least=-settings.differing_bits if settings.method == "simhash" else 1,
            most=256,
        )
    links = Links(0, len(texts))
    links.add(edges)
    return links.tops(np.arange(len(texts)))
