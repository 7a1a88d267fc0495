"""How many copies that somebody planted, to see what is found, were found."""

from collections.abc import Sequence

from megatron_jobs.text.copies.arrays import I64
from megatron_jobs.text.copies.exchange import Exchange
from megatron_jobs.text.copies.store import Fingerprints

ASK, ANSWER = "ask-planted", "planted"


def count_planted(
    exchange: Exchange, prints: Fingerprints, units: Sequence[int], labels: I64
) -> tuple[int, int]:
    """(planted copies among this rank's documents, those in a cluster with their originals).

    Args:
        units: those of this rank.
        labels: of its documents, in order.
    """
    mine = _planted(prints, units)
    if not exchange.is_done(ASK):
        wanted = sorted({original for _, original in mine})
        exchange.send_words(ASK, dict.fromkeys(range(exchange.world), wanted) if wanted else {})
        exchange.finish(ASK)
    exchange.wait(ASK)
    if not exchange.is_done(ANSWER):
        asked = exchange.received_words(ASK)
        found = _labels_of(
            prints, units, labels, {name for some in asked.values() for name in some}
        )
        answers = {
            sender: [f"{found[name]} {name}" for name in some if name in found]
            for sender, some in asked.items()
        }
        exchange.send_words(ANSWER, answers)
        exchange.finish(ANSWER)
    exchange.wait(ANSWER)
    lines = (line for some in exchange.received_words(ANSWER).values() for line in some)
    originals = {name: int(label) for label, name in (line.split(" ", 1) for line in lines)}
    first = int(exchange.bounds[exchange.rank])
    hits = sum(originals.get(name) == labels[item - first] for item, name in mine)
    return len(mine), int(hits)


def _planted(prints: Fingerprints, units: Sequence[int]) -> list[tuple[int, str]]:
    """(number, id of the original) of planted copies."""
    return [
        (int(prints.bases[unit]) + i, row.planted)
        for unit in units
        for i, row in enumerate(prints.rows(unit))
        if row.planted
    ]


def _labels_of(
    prints: Fingerprints, units: Sequence[int], labels: I64, names: set[str]
) -> dict[str, int]:
    """The labels of those of this rank's documents that are named."""
    found: dict[str, int] = {}
    if not names or not units:
        return found
    first = int(prints.bases[units[0]])
    for unit in units:
        for i, row in enumerate(prints.rows(unit)):
            if row.id in names:
                found.setdefault(row.id, int(labels[prints.bases[unit] + i - first]))
    return found
