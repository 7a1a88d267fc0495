#!/usr/bin/env python3
"""Our four stages that find and remove near duplicates, on two ranks: what copies.py runs.

    copies_stages.py FOLDER_OF_JSONL OUT TIMES

Its last line is JSON: the seconds of the stages, each time.
"""

import importlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.stages import cluster, deduplicate, fingerprint, match

HEAVY = (
    "passes",
    "copies.cluster_work",
    "copies.pairs",
    "copies.quick_lines",
    "copies.remove",
    "readers.lines",
)


def main(source: str, out: str, times: str) -> None:
    """Run the stages some times."""
    for name in HEAVY:  # once, not anew in each rank
        importlib.import_module(f"megatron_jobs.text.{name}")
    print(json.dumps([run_stages(Path(source), Path(out)) for _ in range(int(times))]))


def run_stages(source: Path, out: Path) -> float:
    """Seconds of all four."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()  # what others have written is no business of ours
    work = out / "work"
    prints, removals = work / "fingerprints", work / "cluster/removals"
    start = time.perf_counter()
    for stage, place, config in (
        (fingerprint, work, lambda: fingerprint.Config(input=(source,))),
        (match, work / "match", lambda: match.Config(fingerprints=prints, examples=0)),
        (cluster, work / "cluster",
         lambda: cluster.Config(fingerprints=prints, edges=work / "match/edges")),
        (deduplicate, out, lambda: deduplicate.Config(input=(source,), removals=removals)),
    ):  # fmt: skip
        place.mkdir(exist_ok=True, parents=True)
        settings = config()
        outcome = fork_ranks(
            lambda rank, stage=stage, settings=settings, place=place: stage.run(
                settings, rank, place
            ),
            2,
            error_file=lambda i, place=place: place / f"error.{i}",
        )
        assert outcome.status == 0, (place / f"error.{outcome.guilty}").read_text()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
