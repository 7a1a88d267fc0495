#!/usr/bin/env python3
"""datatrove's four MinHash stages with two local workers: what tools/bench/copies.py runs.

    copies_datatrove.py FOLDER_OF_JSONL OUT

Its last line is JSON: seconds of the stages, documents removed, recall of the planted copies.
"""

import glob
import gzip
import json
import sys
import time

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import (
    MinhashConfig,
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
from datatrove.utils.hashing import HashConfig

WORKERS = 2


def main(source: str, out: str) -> None:
    """Run the stages, then count."""
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5
    )

    def reader() -> JsonlReader:
        return JsonlReader(source, compression=None)

    last = MinhashDedupFilter(f"{out}/remove", exclusion_writer=JsonlWriter(f"{out}/removed"))
    stages = [
        ([reader(), MinhashDedupSignature(f"{out}/signatures", config=config)], WORKERS),
        ([MinhashDedupBuckets(f"{out}/signatures", f"{out}/buckets", config=config)], 14),
        ([MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1),
        ([reader(), last, JsonlWriter(f"{out}/kept")], WORKERS),
    ]
    start = time.perf_counter()
    for i, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(
            pipeline=pipeline, tasks=tasks, workers=WORKERS, logging_dir=f"{out}/logs/{i}"
        ).run()
    seconds = time.perf_counter() - start
    removed = read_all(f"{out}/removed/*.gz")
    gone = {record["id"] for record in removed}
    copies = [r for r in [*removed, *read_all(f"{out}/kept/*.gz")] if "copy_of" in r["metadata"]]
    found = sum(r["id"] in gone or r["metadata"]["copy_of"] in gone for r in copies)
    result = {"seconds": seconds, "removed": len(gone), "recall": found / len(copies)}
    print(json.dumps(result))


def read_all(pattern: str) -> list[dict[str, object]]:
    """The records of packed files."""
    files = sorted(glob.glob(pattern))
    return [json.loads(line) for file in files for line in gzip.open(file, "rt")]


if __name__ == "__main__":
    main(*sys.argv[1:])
