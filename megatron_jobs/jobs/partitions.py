"""What Slurm says of its cluster to one user: partitions, nodes, limits, accounts.

Read from sinfo, scontrol and sacctmgr, whose words are alike from Slurm 20.11 to 24.11. Where one
of them does not answer, what it would have said is empty and the command stands in `Site.silent`.
"""

import contextlib
import grp
import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace

from megatron_jobs.errors import UserError
from megatron_jobs.jobs.queue import call_slurm
from megatron_jobs.jobs.user import user_name

SINFO = "%R|%l|%D|%t|%c|%m|%G|%f"
AWAY = ("down", "drain", "drng", "fail", "unk", "maint", "no_resp")
"""How sinfo's short states of nodes begin that take no job; `*` and `$` behind one: no answer,
maintenance. Those of a cloud that are asleep (`idle~`) are as good as up."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """Nodes of a partition that are alike."""

    count: int
    cpus: int
    memory_mb: int
    gpus: int = 0
    gpu_type: str = ""
    features: tuple[str, ...] = ()
    up: bool = True


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; `nodes` are all of it, up or not."""

    name: str
    nodes: tuple[Nodes, ...] = ()
    up: bool = True
    default: bool = False
    max_hours: float | None = None
    """None: no limit."""
    default_hours: float | None = None
    preempt_mode: str = "OFF"
    """What becomes of a job that must make room: OFF when it never must."""
    grace_seconds: int = 0
    words: dict[str, str] = field(default_factory=dict)
    """As `scontrol show partition` says it."""

    @property
    def richest(self) -> Nodes:
        """The kind of node with most GPUs, then the commonest; those that are up first."""
        return max(
            self.nodes or (Nodes(0, 0, 0),), key=lambda kind: (kind.up, kind.gpus, kind.count)
        )

    @property
    def gpus(self) -> int:
        """GPUs of its richest nodes."""
        return self.richest.gpus

    @property
    def nodes_up(self) -> int:
        return sum(kind.count for kind in self.nodes if kind.up)

    @property
    def features(self) -> set[str]:
        return {feature for kind in self.nodes for feature in kind.features}


@dataclass(frozen=True, slots=True)
class Membership:
    """An account that the user may charge, in all partitions or one."""

    account: str
    partition: str = ""
    qos: tuple[str, ...] = ()
    default_qos: str = ""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything that Slurm said."""

    settings: dict[str, str] = field(default_factory=dict)
    """As `scontrol show config` says them."""
    partitions: dict[str, Partition] = field(default_factory=dict)
    memberships: tuple[Membership, ...] = ()
    default_account: str = ""
    silent: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        return self.settings.get("SLURM_VERSION", "unknown")

    def number(self, setting: str, otherwise: int = 0) -> int:
        """The number that a setting begins with: `30 sec` is 30."""
        found = re.match(r"\d+", self.settings.get(setting, ""))
        return int(found[0]) if found else otherwise

    @property
    def accounts(self) -> list[str]:
        return sorted({member.account for member in self.memberships})

    @property
    def warns_before_preemption(self) -> bool:
        """Whether a job's --signal is sent when it is preempted, too."""
        words = (
            f"{self.settings.get('SlurmctldParameters')},{self.settings.get('PreemptParameters')}"
        )
        return "send_user_signal" in words

    def usable(self) -> list[Partition]:
        """Partitions that are up and that this user may submit to, as far as Slurm says."""
        return [part for part in self.partitions.values() if part.up and self.admits(part)]

    def admits(self, partition: Partition) -> bool:
        """Whether the user's accounts and groups are let in; true where it is not known."""
        words = partition.words
        if words.get("RootOnly") == "YES" and not _is_root():
            return False
        groups = words.get("AllowGroups", "ALL")
        if groups != "ALL" and not set(groups.split(",")) & _groups():
            return False
        allowed = words.get("AllowAccounts", "ALL")
        mine, denied = set(self.accounts), set(words.get("DenyAccounts", "").split(","))
        if not mine:
            return True
        return bool(mine - denied) and (allowed == "ALL" or bool(mine & set(allowed.split(","))))


def read_site() -> Site:
    """Ask Slurm; UserError when there is none here, or no cluster answers."""
    config, partitions = (
        _ask("scontrol", "show", "config"),
        _ask("scontrol", "show", "partition", "-o"),
    )
    nodes = _ask("sinfo", "--exact", "--noheader", f"--format={SINFO}")
    user, of = user_name(), "format=Account,Partition,QOS,DefaultQOS"
    members = _ask("sacctmgr", "-nP", "show", "assoc", f"user={user}", of)
    default = _ask("sacctmgr", "-nP", "show", "user", user, "format=DefaultAccount")
    if config is None or nodes is None:
        raise UserError("scontrol and sinfo: no answer that could be read; ask the site")
    return Site(
        settings=parse_config(config),
        partitions=parse_partitions(partitions or "", nodes, parse_config(config)),
        memberships=parse_memberships(members or ""),
        default_account=(default or "").strip().partition("\n")[0],
        silent=("sacctmgr",) if not members else (),
    )


def parse_config(text: str) -> dict[str, str]:
    """Names and values of `scontrol show config`."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_partitions(text: str, sinfo: str, config: dict[str, str]) -> dict[str, Partition]:
    """Partitions from `scontrol show partition -o` and `sinfo --exact --format=SINFO`."""
    kinds: dict[str, list[Nodes]] = {}
    hours: dict[str, float | None] = {}
    for line in sinfo.splitlines():
        name, limit, *fields = line.split("|")
        kinds.setdefault(name, []).append(_nodes(fields))
        hours[name] = parse_hours(limit)
    described = {words["PartitionName"]: words for words in map(_words, text.splitlines()) if words}
    return {
        name: _partition(name, described.get(name, {}), kinds[name], config, hours[name])
        for name in kinds
    }


def parse_memberships(text: str) -> tuple[Membership, ...]:
    """Accounts of a user from `sacctmgr -nP show assoc`."""
    rows = [line.split("|") for line in text.splitlines() if line.count("|") >= 3]
    return tuple(
        Membership(row[0], row[1], tuple(name for name in row[2].split(",") if name), row[3])
        for row in rows
    )


def parse_hours(text: str) -> float | None:
    """Hours of [days-]hours:minutes:seconds or minutes:seconds; None for no limit."""
    days, _, clock = text.rpartition("-")
    parts = clock.split(":")
    if not all(part.isdecimal() for part in parts):
        return None  # infinite, UNLIMITED, NONE, n/a
    seconds = 0
    for part in parts if len(parts) > 1 else [*parts, "0"]:
        seconds = seconds * 60 + int(part)
    return (int(days or 0) * 86400 + seconds) / 3600


def parse_gpus(gres: str) -> tuple[int, str]:
    """Count and type of the GPUs in `gpu:a100:4(S:0-1),nvme:1`; of types the commonest."""
    found: list[tuple[int, str]] = []
    for part in re.sub(r"\([^)]*\)", "", gres).split(","):
        words = part.split(":")
        if words[0] == "gpu" and words[-1].isdecimal():
            found.append((int(words[-1]), words[1] if len(words) > 2 else ""))
    return max(found, default=(0, ""))


def _nodes(fields: list[str]) -> Nodes:
    count, state, cpus, memory, gres, features = fields
    gpus, model = parse_gpus(gres)
    known = tuple(name for name in features.split(",") if name and name != "(null)")
    up = not state.startswith(AWAY) and not state.endswith(("*", "$"))
    return Nodes(_first(count), _first(cpus), _first(memory), gpus, model, known, up)


def _merged(kinds: list[Nodes]) -> tuple[Nodes, ...]:
    """Kinds that differ in more than how busy they are, by which sinfo tells them apart."""
    counts: Counter[Nodes] = Counter()
    for kind in kinds:
        counts[replace(kind, count=0)] += kind.count
    return tuple(replace(kind, count=count) for kind, count in counts.items())


def _partition(
    name: str,
    words: dict[str, str],
    kinds: list[Nodes],
    config: dict[str, str],
    limit: float | None,
) -> Partition:
    mode = words.get("PreemptMode") or config.get("PreemptMode", "OFF")
    if config.get("PreemptType", "preempt/none") == "preempt/none":
        mode = "OFF"
    return Partition(
        name=name,
        nodes=_merged(kinds),
        up=words.get("State", "UP") == "UP",
        default=words.get("Default") == "YES",
        max_hours=limit,
        default_hours=parse_hours(words.get("DefaultTime", "NONE")),
        preempt_mode=mode.replace("GANG,", "").replace("GANG", "OFF"),
        grace_seconds=_first(words.get("GraceTime", "0")),
        words=words,
    )


def _words(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", line))


def _first(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else 0


def _is_root() -> bool:
    return os.getuid() == 0


def _groups() -> set[str]:
    names = set()
    for number in {os.getgid(), *os.getgroups()}:
        with contextlib.suppress(KeyError):  # a group without a name
            names.add(grp.getgrgid(number).gr_name)
    return names


def _ask(*command: str) -> str | None:
    """What a command of Slurm prints; None when it refuses, or is not there beside the others."""
    try:
        done = call_slurm(list(command))
    except UserError:
        if command[0] == "sacctmgr":
            return None
        raise
    return done.stdout if done.returncode == 0 else None
