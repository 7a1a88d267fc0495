"""A corpus with planted copies, and the chain of stages that finds them."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import cluster, deduplicate, fingerprint, match
from megatron_jobs.text.shards import read_shard, shards_below

BOOKS = Path(__file__).parents[3] / "megatron_jobs/plans/books.jsonl"
OTHERS = ["alpha", "beta", "gamma", "delta", "omega"]


def book_texts(letters: int = 1500) -> list[str]:
    """Some 700 texts, no two alike."""
    whole = "\n".join(json.loads(line)["text"] for line in BOOKS.read_text().splitlines())
    return [whole[i : i + letters] for i in range(0, len(whole), letters)]


def planted_corpus(folder: Path, *, originals: int = 120, files: int = 3) -> list[dict[str, Any]]:
    """Documents, and of every third one a copy with 2 % of its words replaced; shuffled."""
    drawn = random.Random(3)
    texts = book_texts()[:originals]
    records: list[dict[str, Any]] = [
        {"id": f"doc{i}", "text": text, "source": "ab"[i % 2], "quality": i % 7}
        for i, text in enumerate(texts)
    ]
    for record in records[::3]:
        words = [drawn.choice(OTHERS) if drawn.random() < 0.02 else word
                 for word in record["text"].split(" ")]  # fmt: skip
        copy = {"id": f"copy-{record['id']}", "text": " ".join(words), "copy_of": record["id"]}
        records.append(copy | {"source": "c", "quality": 9})
    drawn.shuffle(records)
    folder.mkdir()
    for i in range(files):
        lines = [json.dumps(record) + "\n" for record in records[i::files]]
        lines.insert(3, "no json\n")
        (folder / f"{i}.jsonl").write_text("".join(lines))
    return [record for i in range(files) for record in records[i::files]]


def run_tasks(stage: Any, config: Any, folder: Path, tasks: int) -> dict[str, float]:
    """A stage in some tasks, one after the other, and gathered."""
    if tasks == 1:
        found: dict[str, float] = stage.run(config, Rank(), folder)
        return found
    parts = [folder / "tasks" / str(i) for i in range(tasks)]
    for task, part in enumerate(parts):
        stage.run(config, replace(Rank(), task=task, tasks=tasks), part)
    gathered: dict[str, float] = stage.gather(config, folder, parts)
    return gathered


def run_ranks(stage: Any, config: Any, folder: Path, ranks: int) -> None:
    """A stage on some ranks that are processes."""
    folder.mkdir(parents=True, exist_ok=True)
    outcome = fork_ranks(
        lambda rank: stage.run(config, rank, folder),
        ranks,
        error_file=lambda i: folder / f"error.{i}",
    )
    assert outcome.status == 0, (folder / f"error.{outcome.guilty}").read_text()


def run_chain(
    corpus: Path, out: Path, *, tasks: int = 1, ranks: int = 1, keep: str = "first", **settings: Any
) -> dict[str, float]:
    """All four stages; the numbers of the last."""
    read = {"input": (corpus,), "unit_mb": 0.05, "max_quarantined_share": 0.2}
    taken = fingerprint.Config(**read, **settings)
    run_tasks(fingerprint, taken, out / "fingerprint", tasks)
    prints = out / "fingerprint/fingerprints"
    run_tasks(match, match.Config(fingerprints=prints, examples=3), out / "match", tasks)
    joined = cluster.Config(fingerprints=prints, edges=out / "match/edges", keep=keep)
    run_ranks(cluster, joined, out / "cluster", ranks)
    last = deduplicate.Config(**read, removals=out / "cluster/removals")
    return run_tasks(deduplicate, last, out / "deduplicate", tasks)


def records_of(folder: Path, kind: str = "documents") -> list[dict[str, Any]]:
    """The records that a stage left."""
    return [json.loads(line) for shard in shards_below(folder / kind) for line in read_shard(shard)]
