"""The ledger against reading every sample: each document's tokens are marked with its number."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from megatron_jobs.config.curriculum import Phase
from megatron_jobs.data import ledger as ledger_module
from megatron_jobs.data.build_index import IndexPlan, Source, build_sample_index
from megatron_jobs.data.document_names import write_document_names
from megatron_jobs.data.ledger import Ledger
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_facts import TokenFacts
from megatron_jobs.data.token_file import TokenFile, write_token_file
from megatron_jobs.errors import DataError

SOURCES, DOCUMENTS = 3, 40
VOCABULARY = 50_000


def token_id(source: int, sequence: int) -> int:
    """All tokens of a sequence are this one, so that a sample shows whom it is made of."""
    return source * 1000 + sequence


def write_source(folder: Path, source: int) -> Source:
    """Documents of two sequences each, of 0 to 30 tokens, named by source and number."""
    prefix = folder / f"source{source}"
    draw = np.random.default_rng(source)
    with (
        write_token_file(prefix, vocab_size=VOCABULARY) as tokens,
        write_document_names(prefix) as names,
    ):
        for document in range(DOCUMENTS):
            lengths = draw.integers(1, 30, 2).tolist()
            ids = [
                token_id(source, 2 * document + half)
                for half, length in enumerate(lengths)
                for _ in range(length)
            ]
            tokens.add_document(ids, lengths)
            names.add_names([f"s{source}-d{document}"])
    file = TokenFile.open(prefix)
    facts = TokenFacts.of_bare_file(prefix, documents=len(file), tokens=file.tokens)
    return Source(prefix, file, facts, weight=None if source < 0 else float(source + 1))


def open_ledger(folder: Path, *, sources: int, packing: str, phases: int = 0) -> Ledger:
    given = [write_source(folder, source) for source in range(sources)]
    if sources == 1:
        given = [Source(given[0].prefix, given[0].tokens, given[0].facts)]
    weights = itertools.cycle([(1.0, 2.0, 3.0), (5.0, 0.0, 1.0)])
    plan = IndexPlan(
        split="70,30,0",
        seq_len=32,
        seed=7,
        samples={"train": 150, "valid": 20, "test": 0},
        packing=packing,  # type: ignore[arg-type]
        phases=[Phase(until=(i + 1) / phases, weights=next(weights)) for i in range(phases)],
    )
    (folder / "index").mkdir()
    build_sample_index(folder / "index", given, plan)
    return Ledger(SampleIndex.open(folder / "index"))


FORMS = [(1, "none", 0), (3, "none", 0), (3, "best_fit", 0), (1, "best_fit", 0), (3, "none", 2)]


@pytest.mark.parametrize(("sources", "packing", "phases"), FORMS)
def test_equals_reading_every_sample(
    tmp_path: Path, sources: int, packing: str, phases: int
) -> None:
    ledger = open_ledger(tmp_path, sources=sources, packing=packing, phases=phases)
    seen: dict[tuple[int, int], set[tuple[str, int]]] = {}
    for split in ("train", "valid"):
        samples = ledger.splits[split]
        for number in range(len(samples)):
            tokens = samples[number]
            told = [
                token_id(p.source, p.sequence)
                for p in ledger.passages(split, number)
                for _ in range(p.tokens)
            ]
            assert told == [token for token in tokens.tolist() if token >= 0]
            for token in set(told):
                seen.setdefault(divmod(token, 1000), set()).add((split, number))
    assert len(seen) > 50
    for source in range(sources):
        together = list(ledger.sightings(source, range(2 * DOCUMENTS)))
        assert len(together) == len(set(together))
        for sequence in range(2 * DOCUMENTS):
            alone = {(s.split, s.sample) for s in ledger.sightings(source, [sequence])}
            found = {(s.split, s.sample) for s in together if s.sequence == sequence}
            assert found == alone == seen.get((source, sequence), set()), (source, sequence)


def test_names(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, sources=2, packing="none")
    assert ledger.find("s1-d7") == [(1, 14), (1, 15)]
    assert ledger.find("nobody") == []
    assert ledger.name(1, 15) == "s1-d7"
    passage = ledger.passages("train", 0)[0]
    assert ledger.name(passage.source, passage.sequence).startswith(f"s{passage.source}-d")
    (tmp_path / "source1.names").unlink()
    with pytest.raises(DataError, match="tokenize with names=true to have it"):
        Ledger(ledger.index).find("s1-d7")


def test_names_of_other_documents_are_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, sources=1, packing="none")
    with write_document_names(tmp_path / "source0") as names:
        names.add_names([f"s0-d{document}" for document in range(DOCUMENTS - 1)])
    wanted = r"source0\.names: found 39 names, .*source0\.idx has 40 documents; tokenize again"
    with pytest.raises(DataError, match=wanted):
        ledger.find("s0-d7")


@pytest.mark.parametrize("packing", ["none", "best_fit"])
def test_many_documents_cost_no_more_passes_than_one(
    tmp_path: Path, packing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = ledger_module._where

    def counting(values, wanted):  # type: ignore[no-untyped-def]
        looked.append(len(values))
        return real(values, wanted)

    monkeypatch.setattr(ledger_module, "_where", counting)
    ledger = open_ledger(tmp_path, sources=1, packing=packing)
    list(ledger.sightings(0, [3]))
    alone = list(looked)
    looked.clear()
    assert list(ledger.sightings(0, range(40)))
    assert looked == alone
    assert len(alone) == 4  # documents and samples, of train and valid
