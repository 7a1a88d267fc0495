"""Documents without the copies that `cluster` found: a treatment for `run_documents`."""

from megatron_jobs.text.copies.letters import make_shingles
from megatron_jobs.text.copies.removals import Removals
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict


class RemoveDocuments:
    """Rejects the documents that are removed."""

    def __init__(self, removals: Removals) -> None:
        self.removals = removals
        self.row = -1

    def begin(self, unit: int) -> None:
        """The records of this unit come next."""
        self.of_unit = self.removals.of(unit)
        self.row = -1

    def treat(self, record: Record) -> Record | Verdict:
        """The record, or which other one stays in its place."""
        self.row += 1
        removal = self.of_unit.take(self.row)
        if removal is None:
            return record
        kept = {"kept": removal.kept} if removal.kept else {}
        found = {"cluster": removal.cluster, "size": removal.size}
        return Verdict(
            self.removals.rule, kept | {name: n for name, n in found.items() if n > 0}, None
        )

    def finish(self, number: int) -> None:
        """DataError when the unit is not what it was."""
        self.removals.check_count(number, self.row + 1)

    def numbers(self) -> dict[str, int]:
        """It counts nothing of its own."""
        return {}


class RemoveSpans:
    """Cuts repeated lines, paragraphs or sentences out, and rejects what becomes too short.

    What stood in a rejected text first, and was cut from others, is then in none.

    Args:
        least: letters that must be left of a text that something was cut from.
    """

    def __init__(self, removals: Removals, least: int) -> None:
        settings = removals.settings
        self.removals, self.least, self.kind = removals, least, settings.method
        self.shortest = settings.least_letters
        self.shingles = make_shingles(settings)
        self.span = self.documents = 0
        self.cut, self.letters = 0, 0

    def begin(self, unit: int) -> None:
        """The records of this unit come next."""
        self.of_unit = self.removals.of(unit)
        self.span = self.documents = 0

    def treat(self, record: Record) -> Record | Verdict:
        """The record with what is left of its text."""
        _, places, _ = self.shingles.spans([record.text], kind=self.kind, least=self.shortest)
        first, self.span = self.span, self.span + len(places)
        self.documents += 1
        repeated = [i for i in range(len(places)) if self.of_unit.take(first + i)]
        if not repeated:
            return record
        text = _without(record.text, [(int(places[i, 0]), int(places[i, 1])) for i in repeated])
        if len(text) < self.least:
            return Verdict(self.removals.rule, len(text), self.least)
        self.cut += len(repeated)
        self.letters += len(record.text) - len(text)
        record.text = text
        return record

    def finish(self, number: int) -> None:
        """DataError when the unit is not what it was."""
        self.removals.check_count(number, self.documents)

    def numbers(self) -> dict[str, int]:
        """What was cut."""
        found = {f"cut.{self.kind}s": self.cut, "cut.letters": self.letters}
        self.cut = self.letters = 0
        return found


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    """A text without some spans, given in bytes of its UTF-8."""
    whole = text.encode()
    kept, at = [], 0
    for start, end in spans:
        kept.append(whole[at:start])
        at = end
    return b"".join([*kept, whole[at:]]).decode().strip()
