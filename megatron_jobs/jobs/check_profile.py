"""What `mj doctor` looks at in a profile: against Slurm, and against the files that it names."""

import os
import re
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from megatron_jobs.jobs.check import Check, bad, cannot_write, good, judge, remark
from megatron_jobs.jobs.cluster import Cluster
from megatron_jobs.jobs.partitions import Partition, Site
from megatron_jobs.jobs.queue import call_slurm
from megatron_jobs.jobs.software import MODULES, python_of

LEAST_SECONDS = 15
"""Less than that no save of a training fits between the warning and the end."""


def check_against_slurm(cluster: Cluster, site: Site) -> Iterator[Check]:
    """The profile's words for Slurm, one after the other."""
    known: list[Partition] = []
    for what in ("partition", "cpu_partition"):
        names = getattr(cluster, what)
        for name in names.split(",") if names or what == "partition" else ():
            part = _find_partition(name, site)
            yield _check_partition(what, name, part, site)
            known += [part] if part is not None else []
    yield _check_account(cluster, site, known)
    yield _check_qos(cluster, site, known)
    for place in _places(cluster.partition, site):
        yield from _check_nodes(cluster, place)
        yield _check_hours(cluster, place)
    most = site.number("MaxArraySize", 1001)
    yield judge(
        f"found {cluster.max_array_size}, Slurm's MaxArraySize is {most}"
        if cluster.max_array_size > most
        else "",
        "max_array_size",
        f"{cluster.max_array_size}",
        f"set {most}",
    )
    yield from _check_endings(cluster, site, known)


def _places(names: str, site: Site) -> list[Partition]:
    """What a job must fit: one of the partitions, or where the site wants it every one."""
    parts = [part for name in names.split(",") if (part := _find_partition(name, site))]
    if not parts or site.settings.get("EnforcePartLimits") == "ALL":
        return parts
    limits = [part.max_hours for part in parts]
    known = [hours for hours in limits if hours is not None]
    return [
        replace(
            parts[0],
            name=",".join(part.name for part in parts),
            nodes=tuple(kind for part in parts for kind in part.nodes),
            max_hours=max(known) if len(known) == len(limits) else None,
        )
    ]


def _find_partition(name: str, site: Site) -> Partition | None:
    """The one of that name, or Slurm's default."""
    if name:
        return site.partitions.get(name)
    return next((part for part in site.partitions.values() if part.default), None)


def _check_partition(what: str, name: str, part: Partition | None, site: Site) -> Check:
    usable = ", ".join(one.name for one in site.usable()) or "none"
    cure = f"yours are {usable}"
    if part is None:
        found = f"found {name!r}, there is no such partition" if name else "Slurm has no default"
        return bad(what, found, cure)
    if not site.admits(part):
        return bad(what, f"{part.name} does not let in your groups and accounts", cure)
    if not part.up:
        return bad(what, f"{part.name} is {part.words.get('State', 'not up').lower()}", cure)
    if not part.nodes_up:
        return bad(what, f"no node of {part.name} is up", f"wait, or: sinfo -R; {cure}")
    total = sum(kind.count for kind in part.nodes)
    return good(what, f"{part.name}, {part.nodes_up} of {total} nodes are up")


def _check_account(cluster: Cluster, site: Site, parts: list[Partition]) -> Check:
    mine = ", ".join(site.accounts)
    if not site.accounts:
        return remark("account", f"{cluster.account or 'the default'}, not checked: no sacctmgr")
    account = cluster.account or site.default_account
    if account not in site.accounts:
        return bad("account", f"found {account!r}, which is not yours", f"yours are {mine}")
    for part in parts:
        allowed = part.words.get("AllowAccounts", "ALL").split(",")
        if "ALL" not in allowed and account not in allowed:
            found = f"{account} may not use {part.name}"
            return bad("account", found, f"it lets in {', '.join(allowed)}; yours are {mine}")
    return good("account", f"{account}{'' if cluster.account else ', your default'}")


def _check_qos(cluster: Cluster, site: Site, parts: list[Partition]) -> Check:
    account = cluster.account or site.default_account
    members = [one for one in site.memberships if one.account == account]
    mine = sorted({name for one in members for name in one.qos})
    if not cluster.qos or not mine:
        return good("qos", cluster.qos or "the default")
    if cluster.qos not in mine:
        found = f"found {cluster.qos!r}, which {account} does not have"
        return bad("qos", found, f"it has {', '.join(mine)}")
    for part in parts:
        allowed = part.words.get("AllowQos", "ALL").split(",")
        if "ALL" not in allowed and cluster.qos not in allowed:
            found = f"{part.name} does not take {cluster.qos}"
            return bad("qos", found, f"it takes {', '.join(allowed)}")
    return good("qos", cluster.qos)


def _check_nodes(cluster: Cluster, part: Partition) -> Iterator[Check]:
    """GPUs, CPUs and features against the partition's nodes."""
    most = max((kind.gpus for kind in part.nodes), default=0)
    models = sorted({kind.gpu_type for kind in part.nodes if kind.gpu_type})
    asked = f"{cluster.gpus_per_node} {cluster.gpu_type}".strip()
    wrong, cure = "", f"set {most}"
    if cluster.gpus_per_node > most:
        wrong = f"found {cluster.gpus_per_node}, a node of {part.name} has {most}"
    yield judge(wrong, "gpus_per_node", asked, cure)
    if cluster.gpus_per_node < most:
        yield remark(
            "gpus_per_node", f"a node of {part.name} has {most}: jobs cannot have all", cure
        )
    wrong = ""
    if cluster.gpu_type and cluster.gpu_type not in models:
        wrong = f"found {cluster.gpu_type!r}, {part.name} has {', '.join(models) or 'no types'}"
    yield judge(wrong, "gpu_type", cluster.gpu_type or "any", "use one of these, or none for any")
    cpus = max((kind.cpus for kind in part.nodes), default=0)
    wrong = ""
    if cluster.cpus_per_node > cpus:
        wrong = f"found {cluster.cpus_per_node}, a node of {part.name} has {cpus}"
    memory = max((kind.memory_mb for kind in part.nodes), default=0) / 1024
    found = f"{cluster.cpus_per_node or cpus}, with {memory:.0f} GiB of memory"
    yield judge(wrong, "cpus_per_node", found, f"set {cpus}")
    constraint = str(cluster.sbatch.get("constraint", ""))
    unknown = sorted(set(re.findall(r"[A-Za-z_][\w.:-]*", constraint)) - part.features)
    if constraint:
        known = ", ".join(sorted(part.features)) or "no features"
        wrong = f"no node of {part.name} has {', '.join(unknown)}" if unknown else ""
        yield judge(wrong, "sbatch.constraint", constraint, f"its nodes have {known}")


def _check_hours(cluster: Cluster, part: Partition) -> Check:
    limit = part.max_hours
    wrong = ""
    if limit is not None and cluster.max_hours > limit:
        wrong = f"found {cluster.max_hours:g}, the limit of {part.name} is {limit:g} h"
    return judge(wrong, "max_hours", f"{cluster.max_hours:g}", f"set {limit or 0:g}")


def _check_endings(cluster: Cluster, site: Site, parts: list[Partition]) -> Iterator[Check]:
    """How a job is told to stop, and how it goes on."""
    seconds, wait = cluster.signal_seconds, site.number("KillWait", 30)
    wrong = ""
    if seconds < LEAST_SECONDS:
        wrong = f"found {seconds}: a job has so many seconds to save, and KillWait = {wait} more"
    found = f"{seconds}, then KillWait = {wait} s until SIGKILL"
    yield judge(wrong, "signal_seconds", found, f"give {LEAST_SECONDS} or more, better 120")
    yield from (_check_preemption(cluster, site, part) for part in parts)
    found = {
        "requeue": "requeue; that scontrol answers on the nodes is what discover's probe tries",
        "submit": "submit; that sbatch answers on the nodes is what discover's probe tries",
        "ahead": f"ahead, {cluster.successors} successors behind each job",
    }[cluster.again]
    yield good("again", found)
    if site.settings.get("JobRequeue") == "0":
        yield remark("JobRequeue", "0, the default of other jobs; ours ask for --requeue")
    else:
        yield good("JobRequeue", "on")


def _check_preemption(cluster: Cluster, site: Site, part: Partition) -> Check:
    what = f"preemption in {part.name}"
    if part.preempt_mode == "OFF":
        return good(what, "none")
    if part.preempt_mode not in ("REQUEUE", "SUSPEND"):
        found = f"jobs end for good ({part.preempt_mode}) when others need the nodes"
        return bad(what, found, "choose a partition that requeues, or ask the site for REQUEUE")
    grace = part.grace_seconds
    if grace < min(cluster.signal_seconds, LEAST_SECONDS * 2):
        found = f"{part.preempt_mode} after GraceTime = {grace} s, too short for most saves"
        return remark(what, found, "save more often (save_every), or choose another partition")
    if not site.warns_before_preemption:
        found = f"{part.preempt_mode}; jobs get SIGTERM at its start and {grace} s, but no USR2"
        return remark(what, found, "the site may set SlurmctldParameters=preempt_send_user_signal")
    return good(what, f"{part.preempt_mode} after {grace} s, begun with USR2")


def check_files(cluster: Cluster) -> Iterator[Check]:
    """Files, folders and addresses that the profile names."""
    yield _check_scratch(cluster.scratch)
    if cluster.strikes:
        path = Path(cluster.strikes).expanduser().absolute()
        cure = "the team needs a file that all may write: chmod g+rw"
        yield judge(cannot_write(path), "strikes", str(path), cure)
    yield from _check_software(cluster)
    yield _check_python(cluster)
    if cluster.notify.webhook:
        yield _check_webhook(cluster.notify.webhook)


def _check_scratch(scratch: str) -> Check:
    if not scratch:
        return good("scratch", "/dev/shm, or else /tmp")
    path = Path(scratch)
    if not path.is_absolute():
        return bad("scratch", f"found {scratch!r}, no absolute path", "begin it with /")
    if not path.exists():
        return remark(
            "scratch", f"{path} is not on this machine", "the preflight tries each node's"
        )
    return judge(cannot_write(path), "scratch", f"{path}, here", "choose a folder of your own")


def _check_software(cluster: Cluster) -> Iterator[Check]:
    software = cluster.software
    if software.modules:
        yield _check_modules(software.modules)
    if software.kind in ("venv", "conda"):
        there = Path(software.path)
        needed = there / "bin" / ("activate" if software.kind == "venv" else "python")
        named = software.kind == "conda" and not there.is_absolute()
        wrong = "" if named or needed.exists() else f"{needed} is not there"
        yield judge(wrong, "software.path", software.path, f"make the {software.kind} there")
    if software.kind == "pyxis":
        done = call_slurm(["srun", "--help"])
        wrong = "" if "--container-image" in done.stdout else "srun has no --container-image here"
        yield judge(wrong, "software.kind", "pyxis", "ask the site for Pyxis, or use apptainer")
    if software.image.startswith("/"):
        wrong = "" if Path(software.image).exists() else f"{software.image} is not there"
        yield judge(wrong, "software.image", software.image, "build or copy the image there")
    elif software.image:
        yield good("software.image", f"{software.image}, fetched by the nodes")
    for mount in software.mounts:
        host = mount.partition(":")[0]
        if not os.path.exists(host):
            yield remark("software.mounts", f"{host} is not on this machine", "see a node's")


def _check_modules(modules: tuple[str, ...]) -> Check:
    script = f'{MODULES}\nmodule load "$@"'
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{script}", "bash", *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = ""
    if done.returncode != 0 or "ERROR" in done.stderr:
        said = " ".join(done.stderr.split())[-160:]
        wrong = f"cannot be loaded: {said}"
    return judge(wrong, "software.modules", " ".join(modules), "see `module avail` for the names")


def _check_python(cluster: Cluster) -> Check:
    python = python_of(cluster)
    if cluster.software.contained:
        return good("python", f"{python}, of the image")
    if not python.startswith("/"):
        return good("python", f"{python}, as the setup lines leave it on PATH")
    wrong = "" if os.access(python, os.X_OK) else f"{python} is not there, or no program"
    return judge(wrong, "python", python, "set python: to one that the nodes see")


def _check_webhook(url: str) -> Check:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=3).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        where = f"{parts.hostname}:{port}"
        return remark(
            "notify.webhook", f"{where} does not answer here: {error}", "nodes may reach it"
        )
    return good("notify.webhook", f"{parts.hostname} answers")
