"""Parts of a cluster's profile: software, preflight, watch, prices, messages; see jobs.cluster."""

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, NonNegativeInt, PositiveInt

from megatron_jobs.config.settings import Problem, Settings

NonNegative = Annotated[float, Field(ge=0)]
Kind = Literal["none", "module", "venv", "conda", "apptainer", "pyxis"]
Fabric = Literal["", "infiniband-hdr", "infiniband-ndr", "roce", "efa", "slingshot"]
CONTAINERS = ("apptainer", "pyxis")


class Software(Settings):
    """Where the Python of the ranks, and all it imports, comes from."""

    kind: Kind = "none"
    """`none`: the Python that submits, at the same path on the nodes."""
    modules: tuple[str, ...] = ()
    """Names for `module load`, in this order; may stand beside every kind."""
    path: str = ""
    """The folder of a virtual or conda environment."""
    image: str = ""
    """A container's image: a file, or what the runtime can fetch."""
    mounts: tuple[str, ...] = ()
    """HOST or HOST:CONTAINER; run folder, inputs and scratch are mounted in any case."""

    @property
    def contained(self) -> bool:
        """Whether Python runs in a container."""
        return self.kind in CONTAINERS

    def problems(self) -> Iterator[Problem]:
        """What a kind needs and lacks, or has and cannot use; mounts of a wrong shape."""
        needs = {"module": "modules", "venv": "path", "conda": "path"}
        needs |= dict.fromkeys(CONTAINERS, "image")
        needed = needs.get(self.kind, "")
        for setting in ("path", "image", "modules"):
            given = getattr(self, setting)
            if setting == needed and not given:
                yield setting, f"must be set: kind is {self.kind}"
            elif given and setting not in ("modules", needed):
                yield setting, f"{given!r} is of no use: kind is {self.kind}"
        if self.kind == "venv" and self.path and not self.path.startswith("/"):
            yield "path", f"{self.path!r} must be absolute: jobs run in folders of their own"
        if self.mounts and not self.contained:
            yield "mounts", f"are of no use: kind is {self.kind}"
        for place, mount in enumerate(self.mounts):
            parts = mount.split(":")
            if len(parts) > 2 or not all(part.startswith("/") for part in parts) or "," in mount:
                rule = "must be HOST or HOST:CONTAINER, absolute, without a comma"
                yield f"mounts.{place}", f"{mount!r} {rule}"


class Preflight(Settings):
    """What each node is tried for before the ranks start."""

    nodes: bool = True
    """Run slurm/node_check.sh on every node."""
    links: bool = True
    """Reduce numbers between pairs of nodes, each node with two others; from two nodes on."""
    seconds: Annotated[int, Field(ge=15)] = 60
    """It ends by then; a node that has not answered has failed."""
    disk_gb: NonNegative = 1
    """Free space that scratch must have, in GiB."""
    clock_seconds: NonNegative = 5
    """How far a node's clock may be from the first node's."""
    gpu_celsius: PositiveInt = 90
    """A GPU at this temperature or above has failed."""
    lines: tuple[str, ...] = ()
    """The site's own checks: lines of shell; the first that fails fails the node."""


class Watch(Settings):
    """How a running job is looked after."""

    every: PositiveInt = 15
    """Seconds between two looks at the heartbeats."""
    stall_seconds: NonNegativeInt = 480
    """A job whose ranks give no sign of life for so long has stalled; 0: never. Below the 600 s
    after which a collective that waits in vain fails: then nobody can tell any more who is late.
    While ranks save, four times as long."""
    drain_seconds: NonNegativeInt = 60
    """Seconds between two questions to Slurm whether a node of the job is being drained; 0: none.
    A job on such a node saves, stops and goes on elsewhere."""
    straggler: Annotated[float, Field(gt=1)] = 1.2
    """A node whose own work takes so many times the median is shown as a straggler."""


class Prices(Settings):
    """What an hour costs, for status and report."""

    gpu_hour: NonNegative = 0
    cpu_hour: NonNegative = 0
    """Of one core."""
    kwh: NonNegative = 0
    """Of energy, where it is measured."""
    currency: str = "USD"


class Notify(Settings):
    """Who is told what."""

    mail: str = ""
    """Address for Slurm's own mails."""
    webhook: str = ""
    """URL to which a JSON object is posted: text, run, job, event, slurm_id, reason."""
    on: tuple[Literal["end", "fail", "requeue"], ...] = ("end", "fail")

    def problems(self) -> Iterator[Problem]:
        """A webhook that is no URL, an address of several lines."""
        fault = _fault_of_url(self.webhook) if self.webhook else ""
        if fault:
            yield "webhook", f"{self.webhook!r} is no URL: {fault}"
        if "\n" in self.mail or " " in self.mail:
            yield "mail", f"{self.mail!r} is no address"


def _fault_of_url(url: str) -> str:
    """What keeps a URL from being asked, or nothing."""
    if not url.startswith(("http://", "https://")):
        return "it begins with http:// or https://"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # urlsplit and its port say what is wrong
        return str(error)
    if not parts.hostname:
        return "it names no host"
    return "port 0 cannot be asked" if port == 0 else ""
