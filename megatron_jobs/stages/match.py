"""Which items have a fingerprint's key in common: edges, for `cluster` to join.

Each task and rank takes ranges of the keys, whatever unit they are of.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import file_hash, remove, whole_files, write_json
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import link
from megatron_jobs.stages.pieces import begin, run_pieces

if TYPE_CHECKING:
    from megatron_jobs.text.copies.match import MatchRules
    from megatron_jobs.text.copies.store import Fingerprints

OUTPUTS = ("edges", "matches.json")
RESOURCES = Resources(ranks=2)
LAYOUT = ("partitions", "memory_mb")
ENTRY_BYTES = 80
"""Memory of a key while its partition is worked on."""


class Config(Settings):
    """Which items are joined, and in how many parts that is found out."""

    fingerprints: InputPath
    """Output of a `fingerprint` job."""
    partitions: int = 0
    """Ranges of the keys, each worked on as one; 0: as many as keep within `memory_mb`. The result
    does not depend on it."""
    memory_mb: float = 1000
    """Megabytes (10^6 bytes) that a partition may take in a rank."""
    verify: Literal["none", "signature", "exact"] = "none"
    """minhash: whether documents that share a key must also reach `threshold`: none joins them at
    once; signature estimates their Jaccard similarity from all MinHash values (off by some 0.04);
    exact reads their texts again, which needs the input to be still there. simhash and the exact
    methods always compare signatures."""
    threshold: float = 0.7
    """Jaccard similarity that `verify` asks for."""
    most_compared: int = 256
    """Items that share a key with an item, and that it is compared with."""
    examples: int = 20
    """Pairs shown in the report, with their texts' beginnings and exact similarity; their units of
    the input are read again for it."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        if self.partitions < 0:
            yield "partitions", f"{self.partitions} is negative; 0 chooses by memory_mb"
        if self.memory_mb <= 0:
            yield "memory_mb", f"{self.memory_mb} must be positive"
        if not 0 <= self.threshold <= 1:
            yield "threshold", f"{self.threshold} must be from 0 to 1"
        if self.most_compared < 1:
            yield "most_compared", f"{self.most_compared} must be at least 1"
        if self.examples < 0:
            yield "examples", f"{self.examples} is negative; 0 shows none"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write folder/edges of this task's partitions."""
    from megatron_jobs.text.copies.match import match_partition, partition_is_done
    from megatron_jobs.text.copies.store import Fingerprints

    prints = Fingerprints(config.fingerprints)
    count = _partitions(config, prints, rank)
    begin(rank, folder, _made_of(config, count), OUTPUTS)
    rules = _rules(config, prints)
    of_task = run_pieces(
        rank,
        folder,
        [max(prints.entries // count, 1)] * count,
        unit="keys",
        is_done=lambda number: partition_is_done(folder, number),
        do=lambda number: match_partition(prints, folder, number, of=count, rules=rules),
    )
    return _settle(config, folder, of_task) if rank.leads else {}


def gather(config: Config, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Link the edges of all tasks into folder/edges."""
    out = folder / "edges"
    remove(out)
    for task in tasks:
        for file in whole_files(task / "edges"):
            link(file, out / file.name)
    return _settle(config, folder, sorted(int(file.stem) for file in out.glob("*.json")))


def _partitions(config: Config, prints: "Fingerprints", rank: Rank) -> int:
    """At least one for each rank of each task; equal on all of them."""
    if config.partitions:
        return config.partitions
    needed = -(-prints.entries * ENTRY_BYTES // int(config.memory_mb * 1e6))
    return max(needed, rank.world * rank.tasks)


def _rules(config: Config, prints: "Fingerprints") -> "MatchRules":
    from megatron_jobs.text.copies.match import MatchRules

    if config.verify == "exact" and prints.settings.of_spans:
        found = f"exact, but a {prints.settings.method} is compared by 128 bits of its hash"
        raise UserError(f"verify: {found}; leave it at none")
    least: dict[str, float | None] = {
        "minhash": config.threshold if config.verify == "signature" else None,
        "hamming": -prints.settings.differing_bits,
        "equal": 1,
    }
    return MatchRules(
        least=least[prints.settings.measure],
        most_compared=config.most_compared,
        examples=config.examples,
        exact=config.threshold if config.verify == "exact" else None,
    )


def _made_of(config: Config, partitions: int) -> dict[str, Any]:
    settings = config.model_dump(mode="json", exclude={"partitions", "memory_mb"})
    about = file_hash(config.fingerprints / "about.json")
    return {"settings": settings, "partitions": partitions, "fingerprints": about}


def _settle(config: Config, folder: Path, numbers: Sequence[int]) -> dict[str, float]:
    """Write matches.json: the report's part on pairs."""
    from megatron_jobs.text.copies.match import read_facts
    from megatron_jobs.text.copies.pairs import pair_report
    from megatron_jobs.text.copies.store import Fingerprints

    facts = read_facts(folder, numbers)
    report = pair_report(Fingerprints(config.fingerprints), facts, examples=config.examples)
    write_json(folder / "matches.json", report)
    edges = sum(fact.edges for fact in facts)
    numbers_found: dict[str, float] = {"partitions": len(facts), "edges": edges}
    if report["estimated_recall"] is not None:
        numbers_found["estimated_recall"] = report["estimated_recall"]
    return numbers_found
