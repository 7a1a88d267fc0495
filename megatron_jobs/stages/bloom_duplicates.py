"""Near duplicates by Bloom filters (LSHBloom): one pass over the keys in memory that does not grow.

In place of `match` and `cluster`: quicker and smaller, but it keeps the first document always, says
nothing of clusters, and removes some documents that are no copies: `false_positives` of them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.resources import Resources
from megatron_jobs.config.settings import InputPath, Problem, Settings
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import file_hash, remove
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages.documents import link
from megatron_jobs.stages.pieces import begin, run_pieces

if TYPE_CHECKING:
    from megatron_jobs.text.copies.bloom import FilterSize
    from megatron_jobs.text.copies.store import Fingerprints

OUTPUTS = ("removals",)
RESOURCES = Resources()


class Config(Settings):
    """What is looked through, and how large the filters are."""

    fingerprints: InputPath
    """Output of a `fingerprint` job."""
    expected: int = 0
    """Documents that the filters are sized for; 0: as many as there are. More makes errors rarer,
    fewer is refused."""
    false_positives: float = 1e-5
    """Share of the documents without a copy that are removed all the same, at most; 1e-5 takes 30
    bits a key: 52 bytes a document at 14 bands."""
    partitions: int = 0
    """Ranges of the keys, each with a filter of its own and done by one rank; 0: one for each rank
    of each task. All together take the memory of one. Copies are found by any number of them; which
    documents go by mistake depends on it."""

    def problems(self) -> Iterator[Problem]:
        """Values that cannot work."""
        for name in ("expected", "partitions"):
            if getattr(self, name) < 0:
                yield name, f"{getattr(self, name)} is negative; 0 chooses it"
        if not 0 < self.false_positives < 1:
            yield "false_positives", f"{self.false_positives} must be between 0 and 1"


def run(config: Config, rank: Rank, folder: Path) -> dict[str, float]:
    """Write what each of this task's ranges of keys removes; of a job without tasks, all."""
    from megatron_jobs.text.copies.bloom import write_seen

    prints = _open(config)
    count = config.partitions or rank.world * rank.tasks
    begin(rank, folder, _made_of(config, count), OUTPUTS)
    out = folder / "removals"

    def do(number: int) -> None:
        size = _size(config, prints, count)
        write_seen(prints, _part(out, number), number, of=count, size=size)

    of_task = run_pieces(
        rank,
        folder,
        [max(prints.entries // count, 1)] * count,
        unit="keys",
        is_done=lambda number: _part(out, number).exists(),
        do=do,
    )
    if not rank.leads:
        return {}
    if rank.tasks > 1:
        return {"partitions": len(of_task)}
    return _settle(config, prints, out)


def gather(config: Config, folder: Path, tasks: Sequence[Path]) -> dict[str, float]:
    """Join what the ranges of all tasks remove."""
    out = folder / "removals"
    remove(out)
    for task in tasks:
        for part in sorted((task / "removals").glob("*.npy")):
            link(part, out / part.name)
    return _settle(config, _open(config), out)


def _open(config: Config) -> "Fingerprints":
    from megatron_jobs.text.copies.store import Fingerprints

    prints = Fingerprints(config.fingerprints)
    if prints.settings.method != "minhash":
        found = f"{config.fingerprints} is of {prints.settings.method}"
        raise UserError(f"fingerprints: {found}, must be of minhash")
    if 0 < config.expected < prints.items:
        found = f"{config.expected}, but the fingerprints are of {prints.items} documents"
        raise UserError(f"expected: {found}; 0 takes as many as there are")
    return prints


def _size(config: Config, prints: "Fingerprints", partitions: int) -> "FilterSize":
    """Of the filter for a range of the keys."""
    from megatron_jobs.text.copies.bloom import FilterSize, key_rate, most_keys

    bands = prints.settings.bands
    keys = (config.expected or prints.items) * bands
    return FilterSize(most_keys(keys, partitions), key_rate(config.false_positives, bands))


def _made_of(config: Config, partitions: int) -> dict[str, Any]:
    about = file_hash(config.fingerprints / "about.json")
    settings = config.model_dump(mode="json")
    return {"settings": settings, "partitions": partitions, "fingerprints": about}


def _part(out: Path, number: int) -> Path:
    return out / f"{number:06d}.npy"


def _settle(config: Config, prints: "Fingerprints", out: Path) -> dict[str, float]:
    """Write the removals of each unit; the numbers of the receipt."""
    from megatron_jobs.text.copies.bloom import removals_of
    from megatron_jobs.text.copies.removals import write_about, write_removals

    parts = sorted(out.glob("*.npy"))
    units = range(len(prints.units))
    removed = sum(write_removals(out, unit, removals_of(prints, parts, unit)) for unit in units)
    write_about(out, prints, rule="bloom")
    return {
        "documents": prints.items,
        "kept": prints.items - removed,
        "removed": removed,
        "partitions": len(parts),
        "filter_mb": _size(config, prints, len(parts)).bytes / 1e6,
    }
