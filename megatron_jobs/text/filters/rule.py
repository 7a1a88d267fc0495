"""What all rules are: settings that make a judge."""

from collections.abc import Callable

from megatron_jobs.config.settings import Settings
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.shards import Verdict

Judge = Callable[[Page], Verdict | None]
"""Why a page does not go on, or None; it may edit the page when it lets it pass."""


class Rule(Settings):
    """One entry of `rules`; each has a field `rule`, its name, and gives verdicts `name.test`."""

    def prepare(self) -> Judge:
        """The judge, made once a process: what it needs is read here.

        Raises: UserError for what is missing, DataError for files that are not what they say.
        """
        raise NotImplementedError(type(self).__name__)
