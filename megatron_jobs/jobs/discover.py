"""A profile for a cluster nobody has described yet: what Slurm says, and what a probe job saw.

Each setting stands under a comment that says where it comes from; what could not be found out is
said in a comment too, so that whoever reads the file knows what is left to ask the site.
"""

import math
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.fabric import fabric_environment
from megatron_jobs.jobs.node_facts import (
    containers,
    ends_of_time,
    fabric_of,
    how_again,
    network,
    sizes,
    socket_interface,
    verbs_adapters,
    where_scratch,
)
from megatron_jobs.jobs.partitions import Partition, Site, read_site
from megatron_jobs.jobs.probe import Probe, run_probe
from megatron_jobs.jobs.queue import call_slurm
from megatron_jobs.jobs.user import user_name
from megatron_jobs.runtime.files import write_text

DEFAULT_SIGNAL_SECONDS = 120
WIDTH = 98


@dataclass(frozen=True, slots=True)
class Line:
    """A comment, and the setting under it if there is one."""

    comment: str
    setting: str = ""
    value: Any = None

    def text(self) -> str:
        """As it stands in the file; a setting without a value is written commented out."""
        about = textwrap.wrap(self.comment, WIDTH, break_long_words=False, break_on_hyphens=False)
        lines = [f"# {line}" for line in about]
        if self.setting and self.value is None:
            lines.append(f"# {self.setting}:")
        elif self.setting:
            given = {self.setting: self.value}
            lines += [yaml.safe_dump(given, sort_keys=False, allow_unicode=True).rstrip("\n")]
        return "\n".join(lines) + "\n"


def discover(partition: str, *, probe: bool, tell: Callable[[str], None]) -> str:
    """The text of a profile for this cluster.

    Args:
        partition: the one to describe; empty: chosen.
        probe: whether to submit a job of one minute.
        tell: called with a line whenever there is news.
    Raises: UserError when no cluster answers, or it has no partition of that name.
    """
    site = read_site()
    chosen = choose_partition(site, partition)
    tell(f"partition {chosen.name}: {describe(chosen)}")
    option = gpu_option(site, chosen)
    seen, missing = None, "--no-probe was given"
    if probe:
        try:
            seen = run_probe(_sbatch_words(site, chosen, option), tell)
        except UserError as error:
            missing = str(error)
            tell(missing)
    return "\n".join(line.text() for line in profile_lines(site, chosen, seen, missing, option))


def choose_partition(site: Site, wanted: str) -> Partition:
    """The one of that name, or of those open to the user the best: with GPUs, longest limit."""
    if wanted:
        if wanted not in site.partitions:
            known = ", ".join(sorted(site.partitions))
            raise UserError(
                f"--partition: found {wanted!r}, there is no such one; there is {known}"
            )
        return site.partitions[wanted]
    usable = site.usable()
    if not usable:
        raise UserError("sinfo: no partition is up that you may use; ask the site, or: --partition")
    return max(usable, key=_worth)


def choose_cpu_partition(site: Site, chosen: Partition) -> Partition | None:
    """Where jobs without GPUs go when there is a place for them."""
    if not chosen.gpus:
        return None
    return max((part for part in site.usable() if not part.gpus), key=_worth, default=None)


def _worth(part: Partition) -> tuple[bool, float, bool, bool, int]:
    hours = math.inf if part.max_hours is None else part.max_hours
    return part.gpus > 0, hours, part.default, part.preempt_mode == "OFF", part.nodes_up


def describe(part: Partition) -> str:
    """A partition in a few words."""
    kind = part.richest
    gpus = f"{kind.gpus} {kind.gpu_type or 'GPUs'}".rstrip() if kind.gpus else "no GPUs"
    limit = "no time limit" if part.max_hours is None else f"{part.max_hours:g} h"
    total = sum(nodes.count for nodes in part.nodes)
    words = f"{part.nodes_up} of {total} nodes up, {kind.cpus} CPUs, {gpus}, {limit}"
    if part.preempt_mode != "OFF":
        words += f", preempted by {part.preempt_mode} after {part.grace_seconds} s"
    return words


def gpu_option(site: Site, part: Partition) -> str:
    """The way to ask for GPUs that sbatch takes here."""
    if not part.gpus:
        return "gpus-per-node"
    for option, word in {"gpus-per-node": "1", "gres": "gpu:1"}.items():
        words = [f"--{option}={word}", *_sbatch_words(site, part, "")]
        done = call_slurm(["sbatch", "--test-only", "--time=1", *words, "--wrap=true"])
        if done.returncode == 0:
            return option
    return "gpus-per-node"


def _sbatch_words(site: Site, part: Partition, option: str) -> list[str]:
    words = [f"--partition={part.name}"]
    account = account_for(site, part)
    if account:
        words.append(f"--account={account}")
    if option and part.gpus:
        words.append(f"--{option}={'gpu:1' if option == 'gres' else '1'}")
    return words


def account_for(site: Site, part: Partition) -> str:
    """The user's default account, or another that the partition lets in; empty if unknown."""
    allowed = part.words.get("AllowAccounts", "ALL")
    let_in = [name for name in site.accounts if allowed == "ALL" or name in allowed.split(",")]
    if site.default_account in let_in:
        return site.default_account
    return let_in[0] if let_in else ""


def profile_lines(
    site: Site, chosen: Partition, seen: Probe | None, missing: str, option: str
) -> Iterator[Line]:
    """The whole file, from top to bottom."""
    yield _heading(site, seen, missing)
    yield Line("What messages call it.", "name", site.settings.get("ClusterName") or "cluster")
    yield from _place(site, chosen)
    yield from _machine(chosen, seen, option)
    yield from _time(site, chosen, seen)
    if seen is None:
        yield Line("Not looked at, for want of a probe: signals, again, scratch, fabric, software.")
        return
    yield from _going_on(seen)
    yield from _node(seen)


def _heading(site: Site, seen: Probe | None, missing: str) -> Line:
    probed = f"job {seen.slurm_id} on {seen.value('host')}" if seen else f"no probe ({missing})"
    return Line(
        f"Written by `mj cluster discover` on {time.strftime('%Y-%m-%d')} for {user_name()}, "
        f"from Slurm {site.version} and {probed}. Check it with `mj doctor --cluster FILE`; "
        "`mj cluster show FILE` prints every setting, megatron_jobs/jobs/cluster.py explains them."
    )


def _place(site: Site, chosen: Partition) -> Iterator[Line]:
    parts = "; ".join(f"{part.name}: {describe(part)}" for part in site.usable())
    yield Line(f"Open to you: {parts}.", "partition", chosen.name)
    cpu = choose_cpu_partition(site, chosen)
    about = f"Without GPUs: {cpu.name}." if cpu else "All your partitions have GPUs."
    yield Line(f"For jobs that need no GPU. {about}", "cpu_partition", cpu.name if cpu else None)
    account = account_for(site, chosen)
    if site.accounts:
        yield Line(f"Yours: {', '.join(site.accounts)}.", "account", account or None)
    else:
        yield Line("Not found: sacctmgr says nothing of your accounts.", "account")
    qos = sorted({name for member in site.memberships for name in member.qos})
    default = next((member.default_qos for member in site.memberships if member.default_qos), "")
    known = f"Yours: {', '.join(qos)}; the default is {default or 'not named'}." if qos else ""
    yield Line(known or "Not found: sacctmgr says nothing of your QOS.", "qos")


def _machine(chosen: Partition, seen: Probe | None, option: str) -> Iterator[Line]:
    kind = chosen.richest
    others = len({(nodes.cpus, nodes.gpus, nodes.gpu_type) for nodes in chosen.nodes}) - 1
    mixed = f"; {others} other kinds of nodes are in this partition" if others else ""
    yield Line(f"From sinfo{mixed}.", "gpus_per_node", kind.gpus)
    if kind.gpus:
        yield Line("Slurm's name of the model.", "gpu_type", kind.gpu_type or None)
        yield Line("What sbatch --test-only took.", "gpu_option", option)
    memory = f"{kind.memory_mb / 1024:.0f} GiB of memory"
    about = f"A node has {memory}; {sizes(seen)}" if seen else f"A node has {memory}."
    yield Line(about, "cpus_per_node", kind.cpus)


def _time(site: Site, chosen: Partition, seen: Probe | None) -> Iterator[Line]:
    default = chosen.default_hours
    usual = f"{default:g} h if a job names none" if default is not None else "no default"
    limit = chosen.max_hours
    yield Line(f"The partition's limit; {usual}.", "max_hours", limit if limit else None)
    wait = site.number("KillWait", 30)
    before = f"Between the end of its time and SIGKILL a job has KillWait = {wait} s. "
    yield Line(before + _preemption(site), "signal_seconds", DEFAULT_SIGNAL_SECONDS)
    if seen is not None:
        yield Line(ends_of_time(seen))
    size = site.number("MaxArraySize", 1001)
    yield Line("Larger arrays are submitted in parts.", "max_array_size", max(1, size))


def _preemption(site: Site) -> str:
    preempted = [part for part in site.usable() if part.preempt_mode != "OFF"]
    if not preempted:
        return "No partition of yours is preempted."
    graces = ", ".join(f"{part.name} {part.grace_seconds} s" for part in preempted)
    told = "USR2" if site.warns_before_preemption else "SIGTERM, not USR2,"
    return f"A job that is preempted gets {told} and its partition's GraceTime: {graces}."


def _going_on(seen: Probe) -> Iterator[Line]:
    way, why = how_again(seen)
    yield Line(why, "again", way)
    yield Line(f"On the node: {network(seen)}.")


def _node(seen: Probe) -> Iterator[Line]:
    scratch, about = where_scratch(seen)
    yield Line(about, "scratch", scratch or None)
    fabric, about = fabric_of(seen)
    yield Line(about, "fabric", fabric or None)
    environment = socket_interface(seen) | verbs_adapters(seen)
    if environment:
        yield Line(
            "; ".join(f"{name}: {reason}" for name, (_, reason) in environment.items()) + ".",
            "environment",
            {name: value for name, (value, _) in environment.items()},
        )
    yield Line(containers(seen), "software", {"kind": "none"})
    known = {"yes": "is the same", "no": "is NOT the same", "": "is perhaps not the same"}
    kind = seen.value("home")
    yield Line(
        f"Your home {known[seen.value('home.same')]} on the nodes{f' ({kind})' if kind else ''}; "
        "this folder is seen by them."
    )
    version = seen.value("python")
    here = "is there on the nodes" if version else "is NOT there on the nodes: set it"
    yield Line(f"The Python that wrote this {here}.", "python")


def write_profile(path: Path, text: str) -> None:
    """Write a profile; UserError when the file cannot be made."""
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--output: {path} cannot be written: {error.strerror}") from error


def shown(cluster: Cluster) -> str:
    """Every setting of a profile, defaults written out, and what its fabric sets."""
    values = cluster.model_dump(mode="json")
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    found = fabric_environment(cluster.fabric, nodes=2).items()
    lines = [f"#   {name}={value}  {reason}" for name, (value, reason) in found]
    return text + "\n".join(["# set for jobs with GPUs on two nodes or more:", *lines]) + "\n"
