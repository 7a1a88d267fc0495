"""What each rule took, as a table, and examples below it."""

import json
from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from megatron_jobs.jobs.verdicts import IS_QUARANTINED, Example, JobVerdicts, Taken
from megatron_jobs.terminal.status import open_console

MOST = 3
"""Sources and languages that are named."""


def show_verdicts(verdicts: Sequence[JobVerdicts], *, origins: bool) -> None:
    """Print a table a job; with `origins` from which sources and languages each rule took."""
    console = open_console()
    for number, job in enumerate(verdicts):
        if number:
            console.print()
        console.print(_summary(job))
        if job.taken:
            console.print(_table(job, origins))
        for rule, taken in job.taken.items():
            for example in taken.examples:
                console.print(Text(_in_words(rule, example)))


def _summary(job: JobVerdicts) -> Text:
    counts = job.counts
    rejected, quarantined = sum(counts.rejected.values()), sum(counts.quarantined.values())
    so_far = "" if job.finished else ", so far"
    return Text(
        f"{job.job}: {counts.read:,} read, {counts.kept:,} kept"
        f" ({_share(counts.kept, counts.read)}), {rejected:,} rejected,"
        f" {quarantined:,} quarantined{so_far}"
    )


def _table(job: JobVerdicts, origins: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    titles = ["rule", "records", "of read", *(["sources", "languages"] if origins else [])]
    for title in titles:
        number = title in ("records", "of read")
        table.add_column(title, no_wrap=title != "languages", justify="right" if number else "left")
    for rule, taken in job.taken.items():
        cells = [rule, f"{taken.count:,}", _share(taken.count, job.counts.read)]
        if origins:
            cells += [_most(taken.sources, taken), _most(taken.languages, taken)]
        table.add_row(*map(Text, cells))
    return table


def _share(part: int, whole: int, digits: int = 1) -> str:
    """`12.3%`; what is more than nothing is not called so."""
    least = 10.0 ** -(digits + 2)
    share = part / max(whole, 1)
    return f"<{least:.{digits}%}" if 0 < share < least else f"{share:.{digits}%}"


def _most(by: Counter[str], taken: Taken) -> str:
    """`books 60%, web 30%, 4 more`; what is not named is `?`."""
    total = by.total()
    named = [f"{name or '?'} {_share(n, total, 0)}" for name, n in by.most_common(MOST)]
    more = [f"{len(by) - MOST} more"] if len(by) > MOST else []
    return ", ".join(named + more)


def _in_words(rule: str, example: Example) -> str:
    where = f"{example.id} {example.url}".rstrip()
    found = _value(example.found)
    if rule.startswith(IS_QUARANTINED):
        why = f"{found} bytes"
    else:
        why = f"found {found}, limit {_value(example.limit)}"
    text = " ".join(example.text.split())
    return f"\n{rule}: {where}\n  {why}\n  {text[:300]}"


def _value(value: object) -> str:
    rounded = float(f"{value:.4g}") if isinstance(value, float) else value
    return json.dumps(rounded, ensure_ascii=False)
