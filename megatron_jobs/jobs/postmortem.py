"""postmortem.md: why a job failed last, for people; short, however many ranks there are."""

import datetime
import shlex
from collections.abc import Mapping

from megatron_jobs.jobs.events import Event, read_events
from megatron_jobs.jobs.folder import JobFolder
from megatron_jobs.jobs.verdict import Verdict
from megatron_jobs.runtime.files import write_text

DECISIONS = {
    "requeue": "it goes on",
    "exclude": "it goes on without {node}",
    "stop": "it stops",
}


def write_postmortem(folder: JobFolder, verdict: Verdict) -> None:
    """Write RUN/JOB/postmortem.md in place of that of the failure before."""
    write_text(folder.postmortem, render(folder, verdict))


def render(folder: JobFolder, verdict: Verdict) -> str:
    """The whole text: the first cause, what follows from it, what to do, the lines it rests on."""
    decision = DECISIONS[verdict.decision].format(node=verdict.node)
    facts = {
        "cause": verdict.cause,
        "where": verdict.who or "not known",
        "when": _local_time(verdict.time),
        "decision": f"{decision}: {verdict.why}",
        "what to do": _what_to_do(folder, verdict),
        "followed by": _counted(verdict.aftermath),
        "restarts so far": str(_restarts(read_events(folder))),
    }
    lines = [f"# {folder.name}: {verdict.kind}", ""]
    lines += [f"- **{name}**: {text}" for name, text in facts.items() if text]
    for file, quoted in verdict.quotes:
        lines += ["", f"{file}:", f"    {quoted}"]
    return "\n".join(lines) + "\n"


def _what_to_do(folder: JobFolder, verdict: Verdict) -> str:
    if verdict.decision != "stop":
        return "nothing, unless it comes again"
    cure = f"{verdict.cure}; then " if verdict.cure else ""
    run = shlex.quote(str(folder.whole.parent))
    submitted = JobFolder(folder.whole).slurm.exists()
    again = f"mj resubmit {run}" if submitted else "the same mj run again"
    return f"{cure}`{again}`"


def _counted(aftermath: Mapping[str, int]) -> str:
    return ", ".join(
        f"{kind} on {count} other rank{'s' if count > 1 else ''}"
        for kind, count in aftermath.items()
    )


def _restarts(events: list[Event]) -> int:
    return max(0, len([event for event in events if event["event"] == "start"]) - 1)


def _local_time(seconds: float) -> str:
    if not seconds:
        return ""
    when = datetime.datetime.fromtimestamp(seconds).astimezone()
    return when.isoformat(sep=" ", timespec="seconds")
