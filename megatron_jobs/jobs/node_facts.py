"""What the words of a probe mean for a profile: how jobs go on, scratch, network, software."""

import re
from dataclasses import dataclass

from megatron_jobs.jobs.probe import LIMIT_SECONDS, WARNING_SECONDS, Probe

SHARED = ("nfs", "lustre", "gpfs", "beegfs", "cephfs", "ceph", "fuseblk", "smb2", "panfs", "afs")
"""File systems of many nodes, by stat's names; a number is one that stat does not know."""
Reasoned = dict[str, tuple[str, str]]
"""Variable -> (value, reason)."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """One RDMA device of a node."""

    name: str
    driver: str
    layer: str
    """InfiniBand, Ethernet or Unspecified."""
    gigabits: int
    active: bool


def ends_of_time(seen: Probe) -> str:
    """Which signals came and when, at a limit of one minute."""
    asked = f"a limit of {LIMIT_SECONDS} s and --signal=USR2@{WARNING_SECONDS}"
    parts = [_history(seen, who) for who in ("step", "script")]
    looks = (
        "Slurm looks at time limits every 30 s: a warning may come that much early, the end late"
    )
    return f"Seen with {asked}: {'; '.join(parts)}. {looks}."


def _history(seen: Probe, who: str) -> str:
    if who not in seen.ends:
        return f"nothing of the {who}"
    end = seen.ends[who]
    names = dict.fromkeys(note.name for note in seen.signals if note.who == who)
    first = {name: seen.when(who, name) or 0 for name in names if name != "CONT"}
    signals = [f"{name} {end - at:.0f} s before its end" for name, at in first.items()]
    return f"the {who} got {', '.join(signals) or 'no signal'}, and was gone after {end:.0f} s"


def how_again(seen: Probe) -> tuple[str, str]:
    """How jobs go on, and why that is the way."""
    if seen.says_yes("answers.scontrol"):
        return "requeue", "scontrol answers on the nodes: a job is put back under its id."
    if seen.says_yes("answers.sbatch"):
        return "submit", "scontrol is of no use on the nodes, sbatch is: jobs submit successors."
    return "ahead", "Neither scontrol nor sbatch works on the nodes: successors come with the job."


def network(seen: Probe) -> str:
    """What a node reaches, and with which commands of Slurm."""
    login = "reaches" if seen.says_yes("tcp.login") else "does NOT reach"
    outside = "reaches" if seen.says_yes("tcp.outside") else "does not reach"
    there = [name for name in ("scontrol", "sbatch", "squeue", "sinfo", "srun") if _has(seen, name)]
    commands = f"{', '.join(there)} answer" if there else "no command of Slurm answers"
    return (
        f"TCP {login} the machine where this was written and {outside} the outside; {commands}"
        f"; its name stands for {seen.value('address') or 'no address'}"
    )


def _has(seen: Probe, command: str) -> bool:
    answers = seen.value(f"answers.{command}") or seen.value(f"has.{command}")
    return answers == "yes"


def sizes(seen: Probe) -> str:
    """What the node says of itself, beside what Slurm says."""
    gigabytes = int(seen.value("memory_kb") or 0) / 2**20
    limits = ", ".join(
        f"{name} {seen.value(f'ulimit.{name}') or '?'}" for name in ("memlock", "nofile", "nproc")
    )
    gpus = seen.values("gpu")
    model = f" GPUs: {len(gpus)} in the probe, {gpus[0]} driver." if gpus else " No nvidia-smi."
    warning = ""
    if seen.value("ulimit.memlock") not in ("unlimited", "") and seen.values("rdma"):
        warning = " memlock is limited: RDMA may fail; ask the site."
    cpus, memory = seen.value("cpus.all"), f"{gigabytes:.0f} GiB"
    return f"the node itself counts {cpus} CPUs and {memory}; ulimits: {limits}.{model}{warning}"


def where_scratch(seen: Probe) -> tuple[str, str]:
    """The local folder with most room that is no job's own, and what was found in all."""
    best, room, found, devices = "", 0.0, [], set()
    for line in dict.fromkeys(seen.values("scratch")):
        kind, blocks, size, device, folder = line.split(" ", 4)
        free = int(blocks) * int(size) / 2**30
        found.append(f"{folder} ({kind}, {free:.0f} GiB free)")
        own = seen.slurm_id in folder or folder in ("/tmp", "/var/tmp", "/dev/shm")
        if not own and _is_local(kind) and device not in devices and free > room:
            best, room = folder, free
        devices.add(device)
    listed = f"Writable on the node: {', '.join(found)}." if found else "No folder found."
    if best:
        return best, f"{listed} Chosen: local, most room."
    return "", f"{listed} None is local and meant for it: /dev/shm, or else /tmp, is used."


def _is_local(kind: str) -> bool:
    return kind not in SHARED and not kind.startswith(("UNKNOWN", "0x", "tmpfs", "overlay"))


def adapters(seen: Probe) -> list[Adapter]:
    """RDMA devices of the node."""
    found = []
    for line in seen.values("rdma"):
        name, driver, layer, rate, state = line.split("|")
        speed = re.match(r"\d+", rate)
        active = "ACTIVE" in state
        found.append(Adapter(name, driver, layer, int(speed[0]) if speed else 0, active))
    return found


def fabric_of(seen: Probe) -> tuple[str, str]:
    """The kind of network between the nodes; empty for one that needs no variables of ours."""
    fast = [name for name in seen.values("interface") if re.match(r"hsn\d", name)]
    if fast:
        return "slingshot", f"Interfaces {', '.join(fast)}."
    found = adapters(seen)
    listed = ", ".join(
        f"{one.name} ({one.layer or one.driver}, {one.gigabits} Gb/s)"
        for one in found
        if one.active
    )
    about = f"RDMA devices: {listed}." if listed else "No RDMA device found: TCP alone."
    if any(one.driver == "efa" or one.name.startswith("efa") for one in found):
        return "efa", about
    verbs = [one for one in found if one.layer == "InfiniBand" and one.active]
    if verbs:
        rate = max(one.gigabits for one in verbs)
        return ("infiniband-ndr" if rate >= 400 else "infiniband-hdr"), about
    if any(one.layer == "Ethernet" and one.active for one in found):
        return "roce", about
    return "", about


def verbs_adapters(seen: Probe) -> Reasoned:
    """The fast adapters by name, where the node has slower or other ones beside them."""
    kinds = {"infiniband-hdr": "InfiniBand", "infiniband-ndr": "InfiniBand", "roce": "Ethernet"}
    layer = kinds.get(fabric_of(seen)[0])
    active = [one for one in adapters(seen) if one.active]
    same = [one for one in active if one.layer == layer]
    best = max((one.gigabits for one in same), default=0)
    fast = [one.name for one in same if one.gigabits == best]
    if not fast or len(fast) == len(adapters(seen)):
        return {}
    return {"NCCL_IB_HCA": ("=" + ",".join(fast), "not the slower or other adapters beside them")}


def socket_interface(seen: Probe) -> Reasoned:
    """gloo's interface, where a node's name stands for an address that other nodes cannot reach."""
    if not seen.value("address").startswith("127."):
        return {}
    way = seen.value("route") if not seen.value("login.address").startswith("127.") else "lo"
    reason = f"a node's name stands for {seen.value('address')}, which gloo would take"
    return {"GLOO_SOCKET_IFNAME": (way, reason)} if way else {}


def containers(seen: Probe) -> str:
    """Which kinds of software the nodes could run."""
    found = [
        f"{name} ({seen.value(f'container.{name}')})"
        for name in ("apptainer", "singularity", "enroot")
        if seen.value(f"container.{name}")
    ]
    if seen.says_yes("container.pyxis"):
        found.append("pyxis")
    runtimes = f"Containers: {', '.join(found)}." if found else "No container runtime found."
    modules = "There are modules" if seen.says_yes("modules") else "There are no modules"
    return f"{runtimes} {modules}."
