"""All rules of a pass, in turn; the first verdict is the record's."""

from collections import Counter
from collections.abc import Sequence

from megatron_jobs.text.filters.page import Page, Splitter
from megatron_jobs.text.filters.rule import Rule
from megatron_jobs.text.record import Record
from megatron_jobs.text.shards import Verdict


class Judging:
    """A treatment of records; see `passes`.

    Args:
        rules: in the order in which they judge.
        judge_all: ask the rest too when one has rejected, and keep all verdicts as metadata.
        splitter: see `Page`.
    """

    def __init__(
        self, rules: Sequence[Rule], *, judge_all: bool = False, splitter: Splitter | None = None
    ) -> None:
        self.judges = [rule.prepare() for rule in rules]
        self.judge_all = judge_all
        self.splitter = splitter
        self.counts: Counter[str] = Counter()

    def treat(self, record: Record) -> Record | Verdict:
        """The record, as rules have left it, or the first verdict."""
        page = Page(record, self.splitter, self.counts)
        verdicts, judged = list[Verdict](), ""
        for judge in self.judges:
            verdict = judge(page)
            if verdict is None:
                continue
            judged = judged if verdicts else record.text
            verdicts.append(verdict)
            if not self.judge_all:
                break
        if verdicts:
            record.text = judged  # rules behind the one that decided may have edited it
        if self.judge_all and verdicts:
            record.metadata["verdicts"] = [verdict.as_object() for verdict in verdicts]
            self.counts.update(f"judged.{verdict.rule}" for verdict in verdicts)
        return verdicts[0] if verdicts else record

    def numbers(self) -> dict[str, int]:
        """What rules have counted, such as lines removed; see `Treatment`."""
        found = dict(self.counts)
        self.counts.clear()
        return found
