"""A static report of a run: one HTML file that opens without a network."""

from pathlib import Path

from megatron_jobs.jobs.report.page import render_report
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import write_text

NAME = "report.html"


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the report of a run, to RUN/report.html if nothing else is said; gives its path.

    Raises: UserError when it is no run folder.
    """
    path = run / NAME if output is None else output
    write_text(path, render_report(run, plan_status(run)))
    return path
