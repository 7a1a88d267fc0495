"""What a rule says of a record."""

from typing import Any

from megatron_jobs.config.build import build_settings
from megatron_jobs.text.filters.page import Page
from megatron_jobs.text.filters.rule import Rule
from megatron_jobs.text.record import Record


def judged(rule: Rule, text: str = "", **fields: Any) -> str:
    """The test that a record of this text fails, without the rule's name; or nothing."""
    found = verdict_of(rule, Record("r1", text, **fields))
    return found[0].partition(".")[2] if found else ""


def verdict_of(rule: Rule, record: Record) -> tuple[str, Any, Any] | None:
    """(rule, found, limit) for a record, which is changed as the rule does."""
    verdict = rule.prepare()(Page(record))
    return verdict and (verdict.rule, verdict.found, verdict.limit)


def problems_of(kind: type[Rule], **values: Any) -> list[tuple[str, str]]:
    """What is wrong with settings."""
    return build_settings(kind, values)[1]
