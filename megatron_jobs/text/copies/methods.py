"""What is taken of each text to find its copies by: keys that copies share, and a signature.

minhash    keys: bands of MinHash values; signature: the lower 8 bits of each value
simhash    keys: blocks of the 64 bits of SimHash, all choices but `differing_bits`;
           signature: the 64 bits
exact      key and signature: the halves of a 128-bit hash of the letters of a document
paragraph, line, sentence: the same of each of them
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from megatron_jobs.config.settings import Problem
from megatron_jobs.text.copies.arrays import I64, U8, U64
from megatron_jobs.text.copies.letters import ShingleSettings, make_shingles

SPANS = ("line", "paragraph", "sentence")


class FingerprintSettings(ShingleSettings):
    """How copies are found."""

    method: Literal["minhash", "simhash", "exact", "line", "paragraph", "sentence"] = "minhash"
    """minhash finds documents that share most of their shingles, simhash such whose 64-bit hashes
    differ in few bits, exact those with the same letters; line, paragraph and sentence find what
    is repeated inside documents."""
    bands: int = 14
    """minhash: keys of a document; two that share one are candidates. FineWeb's default."""
    rows: int = 8
    """minhash: values in a key. Documents of Jaccard similarity s become candidates with a
    probability of 1 - (1 - s^rows)^bands: half of them at 0.72."""
    seed: int = 1
    """minhash: of the random permutations; from 0 to 2^64 - 1."""
    differing_bits: int = 3
    """simhash: of 64, in which near documents differ at most (Manku et al. 2007). Shingles of two
    words (`ngram`) suit it best: of 40 copies of 1,500 letters with 2 % of their words replaced,
    30 differ in 6 bits or fewer, of five words only 7; of one word the commonest decide, and texts
    of one author come near too."""
    blocks: int = 5
    """simhash: that the bits are cut into; more make keys longer, and more of them:
    blocks choose differing_bits."""
    least_letters: int = 40
    """line, paragraph, sentence: shorter ones may be repeated; UTF-8 bytes after normalisation."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        for name in ("ngram", "letters_ngram", "bands", "rows", "blocks", "least_letters"):
            if getattr(self, name) < 1:
                yield name, f"{getattr(self, name)} must be at least 1"
        if self.bands * self.rows > 65536:
            yield "bands", f"{self.bands} x {self.rows} values a document, at most 65536 can be"
        if not 0 <= self.seed < 2**64:
            yield "seed", f"{self.seed} must be from 0 to {2**64 - 1}"
        if not 0 <= self.differing_bits < self.blocks <= 64:
            found = f"{self.differing_bits} of {self.blocks} blocks"
            yield "differing_bits", f"{found}; must be from 0 to blocks - 1, and blocks at most 64"

    @property
    def measure(self) -> str:
        """How signatures are compared, as `_copies.near_edges` calls it."""
        return {"minhash": "minhash", "simhash": "hamming"}.get(self.method, "equal")

    @property
    def of_spans(self) -> bool:
        """Whether the items that are compared are parts of documents."""
        return self.method in SPANS


@dataclass(frozen=True)
class Prints:
    """The fingerprints of some texts; items are the texts, or the spans in them."""

    keys: U64
    """[items, keys of each]."""
    signatures: U8
    """[items, bytes]."""
    known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    """[items], whether its keys mean something: a text without a letter is no copy of another."""


Texts = list[str] | list[str | bytes]
"""Strings, or their UTF-8."""
Take = Callable[[Texts], Prints]


def make_prints(settings: FingerprintSettings, *, threads: int = 1, machine: str = "") -> Take:
    """The function that takes fingerprints; `machine` as in `make_shingles`."""
    shingles = make_shingles(settings, machine=machine)

    def minhash(texts: Texts) -> Prints:
        keys, signatures, sizes = shingles.minhash(
            texts, bands=settings.bands, rows=settings.rows, seed=settings.seed, threads=threads
        )
        return Prints(keys, signatures, sizes > 0)

    masks = block_masks(settings.blocks, settings.differing_bits)

    def simhash(texts: Texts) -> Prints:
        values, keys, sizes = shingles.simhash(texts, masks=masks, threads=threads)
        return Prints(keys, values.view(np.uint8).reshape(-1, 8), sizes > 0)

    def exact(texts: Texts) -> Prints:
        hashes, lengths = shingles.text_hashes(texts, threads=threads)
        return _of_hashes(hashes, lengths)

    def spans(texts: Texts) -> Prints:
        hashes, _, _ = shingles.spans(
            texts, kind=settings.method, least=settings.least_letters, threads=threads
        )
        return _of_hashes(hashes, np.ones(len(hashes), np.int64))

    return {"minhash": minhash, "simhash": simhash, "exact": exact}.get(settings.method, spans)


def _of_hashes(hashes: U64, lengths: I64) -> Prints:
    signatures = np.ascontiguousarray(hashes[:, 1]).view(np.uint8).reshape(-1, 8)
    return Prints(np.ascontiguousarray(hashes[:, :1]), signatures, lengths > 0)


def block_masks(blocks: int, differing: int) -> U64:
    """The bits of all choices of `blocks` - `differing` blocks of 64 bits."""
    edges = [64 * i // blocks for i in range(blocks + 1)]
    parts = [(1 << edges[i + 1]) - (1 << edges[i]) for i in range(blocks)]
    chosen = combinations(parts, blocks - differing)
    return np.array([sum(choice) for choice in chosen], np.uint64)
