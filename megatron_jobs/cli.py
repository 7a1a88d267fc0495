"""The command `mj`: run, submit, show and watch plans.

Nothing heavy is imported before it is needed: `mj --help` answers in under 0.3 s.
"""

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from megatron_jobs.errors import EXIT_BUG, EXIT_DONE, EXIT_STOPPED, EXIT_USER, UserError
from megatron_jobs.terminal.data import data_app

app = typer.Typer(
    name="mj",
    help="Train, convert and evaluate language models; every stage a job.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

cluster_app = typer.Typer(help="Describe clusters; nodes on strike.", no_args_is_help=True)
app.add_typer(cluster_app, name="cluster")
app.add_typer(data_app, name="data")

PlanFile = Annotated[str, typer.Argument(help="A plan (YAML), or the file of one stage.")]
Words = Annotated[list[str] | None, typer.Argument(help="Settings: job.setting=value.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, as `mj run` or `submit` made it.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print scripts and commands, touch nothing.")
]
ClusterFile = Annotated[str, typer.Option("--cluster", "-c", help="The cluster's profile.")]
NamedJob = Annotated[str, typer.Argument(help="Its name.")]
JobName = Annotated[str, typer.Argument(help="Its name; else the one that wrote last.")]
Run = Annotated[
    Path | None, typer.Option("--run", "-r", help="Run folder; runs/<plan> when not given.")
]


@app.command(short_help="Run a plan on this machine, with local processes.")
def run(plan: PlanFile, words: Words = None, run: Run = None) -> None:
    """Run a plan on this machine with local processes; finished jobs are skipped."""
    from megatron_jobs.jobs.local import run_plan
    from megatron_jobs.jobs.plan import load_plan
    from megatron_jobs.terminal.run import LiveRun

    loaded = load_plan(plan, words or [], run)
    with LiveRun(loaded) as live:
        run_plan(loaded, live.watch)


@app.command(short_help="Submit a plan to Slurm, a job for each of its jobs.")
def submit(
    plan: PlanFile,
    words: Words = None,
    run: Run = None,
    cluster: ClusterFile = "",
    dry_run: DryRun = False,
) -> None:
    """Submit a plan to Slurm: one job each, chained by afterok; finished jobs are skipped."""
    from megatron_jobs.jobs.cluster import load_cluster
    from megatron_jobs.jobs.plan import load_plan
    from megatron_jobs.jobs.resubmit import call_of, remember
    from megatron_jobs.jobs.submit import submit_plan

    profile = load_cluster(cluster)
    loaded = load_plan(plan, words or [], run)
    _print_ids(submit_plan(loaded, profile, dry_run=dry_run))
    if not dry_run:
        remember(loaded.run, call_of(plan, words or [], cluster))
        print(f"run folder: {loaded.run}")


@app.command(short_help="Submit what is missing of a run once more.")
def resubmit(
    run: RunFolder, words: Words = None, cluster: ClusterFile = "", dry_run: DryRun = False
) -> None:
    """Submit a run as it was submitted last: what is missing, with the plan as it is now.

    What still waits for a job that did not end well, and so can never start, is cancelled first.
    """
    from megatron_jobs.jobs.resubmit import resubmit_run

    _print_ids(resubmit_run(run, words or [], cluster=cluster, dry_run=dry_run))


def _print_ids(ids: list[tuple[str, str]]) -> None:
    for name, slurm_id in ids:
        print(f"{name}: {slurm_id}")


@app.command(short_help="Print every setting of a plan, and what it will need.")
def show(plan: PlanFile, words: Words = None, run: Run = None) -> None:
    """Print every setting with its origin, and what the plan will need; start nothing."""
    from megatron_jobs.jobs.plan import load_plan
    from megatron_jobs.terminal.plan import show_plan

    show_plan(load_plan(plan, words or [], run))


@app.command(short_help="Print the state of each job of a run; --watch: live.")
def status(
    run: RunFolder,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Live, to the end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All that is known, as JSON.")] = False,
) -> None:
    """Print the state of each job of a run, what it waits for, and what it has cost."""
    from megatron_jobs.jobs.status import plan_status
    from megatron_jobs.terminal.status import print_status_json, show_status, watch_status

    if watch and as_json:
        raise UserError("--watch and --json: only one of them; for JSON ask again and again")
    if watch:
        watch_status(run)
    elif as_json:
        print_status_json(run, plan_status(run))
    else:
        show_status(run, plan_status(run))


@app.command(short_help="Print the logs of a job, or why jobs failed.")
def logs(
    run: RunFolder,
    job: Annotated[str, typer.Argument(help="Its name; else the one that wrote last.")] = "",
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only this rank's.")] = None,
    task: Annotated[int | None, typer.Option("--task", min=0, help="Of this task's ranks.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it grows.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Of failed jobs: who is to blame.")] = (
        False
    ),
) -> None:
    """Print the logs of a job's ranks, or of the ranks that made jobs fail."""
    from megatron_jobs.jobs.status import failed_jobs, goes_on, latest_job, log_files
    from megatron_jobs.terminal.logs import follow_logs, print_logs, show_failed

    if failed:
        given = {"--rank": rank is not None, "--task": task is not None, "--follow": follow}
        for other in (name for name in given if given[name]):
            cure = "it finds the rank itself, and prints what is there"
            raise UserError(f"--failed and {other}: only one of them; {cure}")
        show_failed(failed_jobs(run, job))
        return
    name = job or latest_job(run)
    if follow:
        follow_logs(lambda: log_files(run, name, rank, task), lambda: goes_on(run, name))
    else:
        print_logs(log_files(run, name, rank, task), {})


@app.command(short_help="Print what every rank of a job does right now.")
def stacks(run: RunFolder, job: JobName = "") -> None:
    """Print what every rank of a running job is doing right now: its Python stack."""
    from megatron_jobs.jobs.inquiry import job_of, rank_states
    from megatron_jobs.jobs.stacks import merged

    print(merged(rank_states(job_of(run, job))), end="")


@app.command(short_help="Print how long each node works for a step.")
def nodes(run: RunFolder, job: JobName = "") -> None:
    """Print how long each node of a job works for a step, and mark the slow ones."""
    from megatron_jobs.jobs.inquiry import job_of
    from megatron_jobs.jobs.stragglers import read_stragglers
    from megatron_jobs.terminal.nodes import show_nodes

    folder = job_of(run, job)
    show_nodes(folder.path.name, read_stragglers(folder))


@app.command(short_help="Write all about a run into one HTML file.")
def report(
    run: RunFolder,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="RUN/report.html when not given.")
    ] = None,
) -> None:
    """Write all about a run into one HTML file: plan, timeline, losses, nodes, costs."""
    from megatron_jobs.jobs.report import write_report

    print(write_report(run, output))


@app.command(short_help="Cancel jobs of a run that Slurm still holds.")
def cancel(run: RunFolder, jobs: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Cancel jobs of a run that Slurm still holds; all of them when none is named."""
    from megatron_jobs.jobs.status import cancel_run

    cancelled = cancel_run(run, jobs or [])
    for name, slurm_id in cancelled:
        print(f"cancelled {name} ({slurm_id})")
    if not cancelled:
        print("nothing to cancel: Slurm holds none of these jobs")


@app.command(short_help="Ask a job to save now and go on.")
def save(run: RunFolder, job: NamedJob) -> None:
    """Ask a job to save now and go on (RUN/JOB/SAVE; the file is gone when it has saved)."""
    from megatron_jobs.jobs.switches import ask_to_save

    folder = ask_to_save(run, job)
    print(f"{job}: saves after its step; {folder.save_switch} is gone when it has")


@app.command(short_help="Ask a job to save and stop.")
def stop(run: RunFolder, job: NamedJob) -> None:
    """Ask a job to save and stop; it is not started again until RUN/JOB/KILL is removed."""
    from megatron_jobs.jobs.switches import ask_to_stop, jobs_behind

    folder, warned = ask_to_stop(run, job)
    told = f", Slurm has told {', '.join(warned)}" if warned else ""
    print(f"{job}: saves and stops{told}; {folder.kill_switch} keeps it from starting again")
    behind = jobs_behind(run, job)
    if behind:
        print(f"nor will those begin that wait for it: {', '.join(behind)}")


@app.command(short_help="Check installation, profile of a cluster, and plan.")
def doctor(
    plan: Annotated[str, typer.Argument(help="A plan to look over too; none when left out.")] = "",
    words: Words = None,
    run: Run = None,
    cluster: ClusterFile = "",
) -> None:
    """Check the installation, a cluster's profile and a plan; each fault with its cure."""
    from megatron_jobs.jobs.doctor import consult

    failed = False
    for finding in consult(plan, words or [], run=run, cluster=cluster):
        print(finding.line(), flush=True)
        failed = failed or finding.fails
    raise typer.Exit(EXIT_USER if failed else EXIT_DONE)


@cluster_app.command("discover", short_help="Write a profile of the cluster at hand.")
def cluster_discover(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File to write.")] = None,
    partition: Annotated[str, typer.Option("--partition", "-p", help="The one to describe.")] = "",
    probe: Annotated[bool, typer.Option(help="Look at a node by a job of one minute.")] = True,
) -> None:
    """Write a profile of the cluster at hand, from what Slurm says and a probe job."""
    from megatron_jobs.jobs.discover import discover, write_profile

    if output is not None and output.exists():
        raise UserError(f"--output: {output} is there already; remove it, or choose another name")
    text = discover(partition, probe=probe, tell=lambda news: print(news, file=sys.stderr))
    if output is None:
        print(text, end="")
    else:
        write_profile(output, text)


@cluster_app.command("show", short_help="Print every setting of a profile.")
def cluster_show(
    cluster: Annotated[str, typer.Argument(help="A profile's file, or one that ships.")],
) -> None:
    """Print every setting of a profile, defaults written out."""
    from megatron_jobs.jobs.cluster import load_cluster
    from megatron_jobs.jobs.discover import shown

    print(shown(load_cluster(cluster)), end="")


@cluster_app.command("strikes", short_help="Show the nodes on strike, or take one off the list.")
def cluster_strikes(
    cluster: Annotated[str, typer.Argument(help="A profile's file, or one that ships.")],
    forget: Annotated[list[str] | None, typer.Option(help="Take a node off the list.")] = None,
) -> None:
    """Show the nodes that new jobs are not given since they failed, or take one off the list."""
    from megatron_jobs.jobs.cluster import load_cluster
    from megatron_jobs.jobs.strikes import forget as take_off
    from megatron_jobs.jobs.strikes import in_words

    profile = load_cluster(cluster)
    for node in forget or []:
        take_off(profile, node)
    print("\n".join(in_words(profile)))


@data_app.command("verdicts", short_help="Print how many records each rule took.")
def data_verdicts(
    run: RunFolder,
    job: Annotated[str, typer.Argument(help="Its name; else all that judge records.")] = "",
    rule: Annotated[str, typer.Option("--rule", help="Only this one, or those below it.")] = "",
    examples: Annotated[int, typer.Option("--examples", min=0, help="So many of each rule.")] = 0,
    origins: Annotated[bool, typer.Option(help="Of which sources and languages.")] = True,
) -> None:
    """Print how many records each rule took, of which sources and languages, and examples."""
    from megatron_jobs.jobs.verdicts import look, read_verdicts
    from megatron_jobs.terminal.verdicts import show_verdicts

    found = read_verdicts(run, job, rule)
    for verdicts in found:
        if origins or examples:
            look(verdicts, examples=examples, everything=origins)
    show_verdicts(found, origins=origins)


def main(words: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 a bug or a failed job, 2 yours to mend, 75 stopped and saved."""
    given = sys.argv[1:] if words is None else words
    try:
        app(given, standalone_mode=True)
    except SystemExit as leaving:
        return int(leaving.code or EXIT_DONE)
    except KeyboardInterrupt:
        return EXIT_STOPPED
    except Exception as error:
        return _explain(given, error)
    return EXIT_DONE


def _explain(words: list[str], error: Exception) -> int:
    """Print what went wrong in the form that suits its kind."""
    from megatron_jobs.errors import DataError, MegatronJobsError, Stopped

    verb = words[0] if words else ""
    if isinstance(error, MegatronJobsError):
        print(f"mj {verb}: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    if isinstance(error, (UserError, DataError)):
        return EXIT_USER
    return EXIT_STOPPED if isinstance(error, Stopped) else EXIT_BUG


def entry() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry()
