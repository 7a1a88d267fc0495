"""What all rules are: settings that make a judge."""

from collections.abc import Callable, Iterator
from typing import Any

from megatron_jobs.config.settings import Settings
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.shards import Verdict

Judge = Callable[[Page], Verdict | None]
"""Why a page does not go on, or None; it may edit the page when it lets it pass."""
Missed = Iterator[tuple[str, Any, Any]]
"""(test, found, limit) of each test that fails, most telling first."""


class Rule(Settings):
    """One entry of `rules`; each has a field `rule`, its name, and gives verdicts `name.test`."""

    def prepare(self) -> Judge:
        """The judge, made once a process: what it needs is read here.

        Raises: UserError for what is missing, DataError for files that are not what they say.
        """
        raise NotImplementedError(type(self).__name__)


class Thresholds(Rule):
    """A rule of tests that need nothing but the page; the first that fails gives the verdict."""

    def missed(self, page: Page) -> Missed:
        """Yield each test that fails."""
        raise NotImplementedError(type(self).__name__)

    def prepare(self) -> Judge:
        """The judge; see `Rule`."""
        name = type(self).model_fields["rule"].default

        def judge(page: Page) -> Verdict | None:
            for test, found, limit in self.missed(page):
                return Verdict(f"{name}.{test}", found, limit)
            return None

        return judge


def outside(test: str, found: float, low: float | None, high: float | None) -> Missed:
    """`too_low_TEST` or `too_high_TEST` when a value is outside its limits; None is no limit."""
    if low is not None and found < low:
        yield f"too_low_{test}", found, low
    if high is not None and found > high:
        yield f"too_high_{test}", found, high
