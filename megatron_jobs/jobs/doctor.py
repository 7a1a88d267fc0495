"""`mj doctor`: the installation, a cluster's profile and a plan, one line for each thing."""

from collections.abc import Iterator
from pathlib import Path

from megatron_jobs.errors import ConfigError, MegatronJobsError, UserError
from megatron_jobs.jobs.check import Check, bad, good, remark
from megatron_jobs.jobs.check_install import (
    check_installation,
    check_run_folder,
    nodes_are_here,
)
from megatron_jobs.jobs.check_profile import check_against_slurm, check_files
from megatron_jobs.jobs.cluster import Cluster, load_cluster
from megatron_jobs.jobs.partitions import Site, read_site
from megatron_jobs.jobs.plan import Plan, load_plan
from megatron_jobs.jobs.submit import foresee, plan_problems


def consult(plan: str, words: list[str], *, run: Path | None, cluster: str) -> Iterator[Check]:
    """All that can be checked with what is given; the cheap things first.

    Args:
        plan: a plan's file; empty: none.
        words: settings of the plan.
        run: the run folder; of the plan's name when None.
        cluster: a profile; empty: none, and Slurm is not asked.
    """
    loaded, faults = _load_plan(plan, words, run)
    profile, more = _load_profile(cluster)
    yield from more
    site = None
    if profile is not None:
        yield from check_files(profile)
        site, answer = _ask_slurm(profile)
        yield answer
    if profile is not None and site is not None:
        yield from check_against_slurm(profile, site)
    gpus = max((job.resources.gpus for job in loaded.jobs.values()), default=0) if loaded else 0
    yield from check_installation(profile, gpus=gpus)
    folder = loaded.run if loaded else (run or Path("runs")).absolute()
    yield from check_run_folder(folder, nodes_here=nodes_are_here() if site else None)
    yield from faults
    if loaded is not None and profile is not None:
        yield from _check_plan(loaded, profile, asked=site is not None)


def _load_profile(name: str) -> tuple[Cluster | None, list[Check]]:
    if not name:
        return None, [remark("profile", "none given", "name one with --cluster")]
    try:
        profile = load_cluster(name)
    except ConfigError as error:
        cure = "see mj cluster show for all settings"
        return None, [
            bad(f"profile {name}", f"{key}: {text}", cure) for key, text in error.problems
        ]
    except UserError as error:
        return None, [bad("profile", str(error), "write one: mj cluster discover --output FILE")]
    return profile, [good("profile", f"{name}, for {profile.name}")]


def _load_plan(name: str, words: list[str], run: Path | None) -> tuple[Plan | None, list[Check]]:
    if not name:
        return None, []
    try:
        return load_plan(name, words, run), []
    except ConfigError as error:
        faults = [bad(f"plan {name}", f"{key}: {text}", "mend it") for key, text in error.problems]
        return None, faults
    except UserError as error:
        return None, [bad("plan", str(error), "mend it")]


def _ask_slurm(profile: Cluster) -> tuple[Site | None, Check]:
    try:
        site = read_site()
    except MegatronJobsError as error:
        words, _, cure = str(error).partition("; ")
        return None, bad("Slurm", words, cure)
    name = site.settings.get("ClusterName", "unnamed")
    return site, good("Slurm", f"{site.version}, cluster {name}")


def _check_plan(plan: Plan, profile: Cluster, *, asked: bool) -> Iterator[Check]:
    """The plan against the profile, then each job against Slurm."""
    problems = list(plan_problems(plan, profile))
    for setting, sentence in problems:
        yield bad(setting, sentence, "change the plan, or the profile")
    if not problems:
        yield good("plan", f"{plan.shown}: {len(plan.jobs)} jobs, all within the profile")
    if not asked:
        return
    for name, job in plan.jobs.items():
        try:
            yield good(name, foresee(job, profile))
        except MegatronJobsError as error:
            yield bad(name, str(error).removeprefix(f"{name}: "), "ask for less, or elsewhere")
