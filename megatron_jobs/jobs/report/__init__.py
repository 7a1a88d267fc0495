"""A static report of a run: one HTML file that opens without a network."""

from pathlib import Path

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.report.page import render_report
from megatron_jobs.jobs.status import plan_status
from megatron_jobs.runtime.files import write_text

NAME = "report.html"


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the report of a run, to RUN/report.html if nothing else is said; gives its path.

    Raises: UserError when it is no run folder, or the file cannot be written.
    """
    path = run / NAME if output is None else output
    page = render_report(run, plan_status(run))
    if path.is_dir():
        raise UserError(f"--output: {path} is a folder; name a file: --output {path / NAME}")
    try:
        write_text(path, page)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"--output: {path} cannot be written: {why}; name another file") from error
    return path
