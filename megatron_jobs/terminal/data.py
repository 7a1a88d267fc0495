"""The commands `mj data`: what became of documents."""

import os
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from megatron_jobs.errors import UserError

if TYPE_CHECKING:
    from megatron_jobs.jobs.traces import Trace

data_app = typer.Typer(help="What became of documents.", no_args_is_help=True)
Run = Annotated[Path, typer.Argument(help="A run folder.")]
STEPS = 12
"""That are named of a document's."""
COLUMNS = 100


@data_app.command(short_help="Print where documents went: shards, steps, checkpoints.")
def find(
    run: Run,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.")] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids", help="A file with an id a line; - for standard input.")
    ] = None,
    shards: Annotated[bool, typer.Option(help="Look through the records of all jobs too.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="All that is found, as JSON.")] = False,
) -> None:
    """Print where documents went, such as those that somebody asks to have deleted.

    Work that was moved to RUN/.replaced is looked through as well. At the end stands what cannot be
    told, and what was not looked through. The same ids, in a file, are what the filter's rule `ids`
    takes out of the next run.
    """
    import json
    from dataclasses import asdict

    from megatron_jobs.jobs.traces import trace_documents

    names = [*(ids or []), *_read_ids(ids_file)]
    if not names:
        raise UserError("found no id; name documents, or give a file with --ids")
    search = trace_documents(run, names, shards=shards)
    if as_json:
        print(json.dumps(asdict(search), indent=2, ensure_ascii=False))
        return
    place = f"{run.absolute()}{os.sep}"
    for trace in search.traces:
        lines = [line.replace(place, "") for line in _lines(trace)]
        print("\n".join([trace.id, *(f"  {line}" for line in lines or ["found nowhere"])]))
    _print_wrapped("cannot be told:", [line.replace(place, "") for line in search.untold])
    unsearched = [*([] if shards else ["the records of all jobs"]), *search.unsearched]
    _print_wrapped("not looked through:", [", ".join(unsearched)] if unsearched else [])


def _lines(trace: "Trace") -> list[str]:
    lines = [f"shard {place}" for place in trace.shards]
    lines += [f"tokens {t['file']}.bin, document {t['document']}" for t in trace.tokens]
    lines += [f"{job}: trained on in {_some(steps)}" for job, steps in trace.steps.items()]
    lines += [f"{job}: still to come in {_some(steps)}" for job, steps in trace.planned.items()]
    seen = (path for paths in trace.checkpoints.values() for path in paths)
    return lines + [f"checkpoint {path} has seen it" for path in seen]


def _print_wrapped(title: str, sentences: list[str]) -> None:
    """A title and sentences below it, in lines of the terminal's width; nothing without any."""
    fill = textwrap.TextWrapper(COLUMNS, initial_indent="  ", subsequent_indent="    ")
    fill.break_long_words = fill.break_on_hyphens = False
    if sentences:
        print("\n".join([title, *map(fill.fill, sentences)]))


@data_app.command(short_help="Print the documents that a training step was made of.")
def step(
    run: Run,
    number: Annotated[int, typer.Argument(help="Of the step, from 1.", min=1)],
    job: Annotated[str, typer.Option("--job", help="Which training.")] = "",
) -> None:
    """Print what a step was trained on: sample, source, document, tokens."""
    from megatron_jobs.jobs.traces import documents_of_step

    rows = documents_of_step(run, number, job)
    for row in [("sample", "source", "document", "tokens"), *rows]:
        print(*row, sep="\t")


def _read_ids(path: Path | None) -> list[str]:
    if path is None:
        return []
    if str(path) == "-":
        return [line.strip() for line in sys.stdin if line.strip()]
    if not path.is_file():
        raise UserError(f"--ids: {path}: no such file")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _some(steps: list[int]) -> str:
    more = f" and {len(steps) - STEPS} more" if len(steps) > STEPS else ""
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps[:STEPS]))}{more}"
