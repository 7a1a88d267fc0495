"""Records listed by their ids: requests to delete, or a selection."""

from typing import Literal

from megatron_jobs.config.settings import InputPath
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Judge, Rule
from megatron_jobs.text.filters.word_lists import read_lines
from megatron_jobs.text.shards import Verdict


class Ids(Rule):
    """Rejects the records of a list, or all others."""

    rule: Literal["ids"] = "ids"
    file: InputPath
    """Ids, one a line; lines that begin with # are comments."""
    keep: bool = False
    """Let pass what is listed, and nothing else."""

    def prepare(self) -> Judge:
        """The judge."""
        listed = frozenset(read_lines(self.file))

        def judge(page: Page) -> Verdict | None:
            if (page.record.id in listed) == self.keep:
                return None
            test = "not_listed" if self.keep else "listed"
            return Verdict(f"ids.{test}", page.record.id, self.file.name)

        return judge
