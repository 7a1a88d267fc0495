#!/usr/bin/env python3
"""Near duplicates against gaoya and rensa in memory, and against datatrove from file to file.

    tools/bench/copies.py --corpus corpus.jsonl --mb 90 --peers PEERS --rounds 5
    tools/bench/copies.py --corpus corpus.jsonl --mb 90 --peers PEERS --disk --rounds 2

The corpus is JSONL with `id` and `text`; a copy of every tenth document is planted, with 2 % of its
words replaced. PEERS is a virtual environment of the same Python with gaoya, rensa and, for --disk,
datatrove (with xxhash<4, regex, nltk, spacy, tldextract, tokenizers). Each round runs the peer and
ours in turn; printed are medians, of the ratios of each round the median and the range, and the
recall of the planted copies beside the one that the formula promises for their exact similarities
(that of one seed scatters about it: ours is also given as the mean of many).
Then what the C++ code for each kind of machine does, and how precise the pairs are. On disk ours is
run three times a round, since it takes a hundredth of the time, and the median counts.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from megatron_jobs.text.copies.in_memory import find_copies
from megatron_jobs.text.copies.letters import ShingleSettings, make_shingles

OTHERS = ["alpha", "beta", "gamma", "delta", "epsilon", "omega"]
SEEDS = 64
MACHINES = ("avx512", "avx2", "sse4.1", "plain")
Found = Callable[[int, int], bool]
"""Whether the copy and its original (numbers) were found to be copies."""


def main() -> int:
    """Print a line a peer."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--mb", type=float, default=90)
    parser.add_argument("--peers", type=Path, help="virtual environment of the peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--disk", action="store_true", help="from file to file")
    asked = parser.parse_args()
    records = plant(asked.corpus, asked.mb)
    letters = sum(len(record["text"].encode()) for record in records) / 1e6
    print(f"{len(records):,} documents, {letters:.0f} MB of text", flush=True)
    if asked.disk:
        compare_on_disk(records, asked, letters)
        return 0
    sys.path += [str(path) for path in (asked.peers or Path()).glob("lib/python3*/site-packages")]
    os.environ["RAYON_NUM_THREADS"] = str(asked.threads)
    judge_seeds(records)
    for name, peer in (("gaoya", gaoya), ("rensa", rensa)):
        compare_in_memory(name, peer, records, asked, letters)
    compare_machines(records, asked, letters)
    judge_pairs(records)
    wanted = {name for r in records if "copy_of" in r for name in (r["id"], r["copy_of"])}
    judge_precision([record for record in records if record["id"] in wanted][:3000])
    return 0


def plant(corpus: Path, megabytes: float) -> list[dict[str, Any]]:
    """The first documents of the corpus and the planted copies, shuffled."""
    chance, records, size = random.Random(7), [], 0
    with corpus.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            size += len(record["text"])
            records.append({"id": str(record["id"]), "text": record["text"]})
            if size > megabytes * 1e6:
                break
    for record in chance.sample(records, len(records) // 10):
        words = record["text"].split(" ")
        noisy = " ".join(chance.choice(OTHERS) if chance.random() < 0.02 else w for w in words)
        records.append({"id": f"copy-{record['id']}", "text": noisy, "copy_of": record["id"]})
    chance.shuffle(records)
    return records


def recall(records: list[dict[str, Any]], found: Found) -> float:
    """Share of the planted copies that were found."""
    place = {record["id"]: i for i, record in enumerate(records)}
    pairs = [(i, place[r["copy_of"]]) for i, r in enumerate(records) if "copy_of" in r]
    return sum(found(a, b) for a, b in pairs) / len(pairs)


def judge_seeds(records: list[dict[str, Any]]) -> None:
    """What 14 keys of 8 should find of the planted copies, by their exact similarities, and what
    they do."""
    texts = {record["id"]: record["text"] for record in records}
    pairs = [(texts[r["copy_of"]], r["text"]) for r in records if "copy_of" in r]
    shingles = make_shingles(ShingleSettings())
    promised = statistics.mean(1 - (1 - shingles.jaccard(a, b) ** 8) ** 14 for a, b in pairs)
    found = []
    for seed in range(1, SEEDS + 1):
        one, other = (
            shingles.minhash(list(some), bands=14, rows=8, seed=seed)[0]
            for some in zip(*pairs, strict=True)
        )
        found.append((one == other).any(axis=1).mean())
    mean, scatter = statistics.mean(found), statistics.stdev(found)
    print(f"{'formula':10} promises a recall of {promised:.4f}; ours with {SEEDS} seeds", end=" ")
    print(f"{mean:.4f} +- {scatter / SEEDS**0.5:.4f}, one seed +- {scatter:.4f}", flush=True)


def ours(texts: list[str], threads: int) -> Found:
    """All in memory."""
    labels = find_copies(texts, threads=threads)
    return lambda a, b: bool(labels[a] == labels[b])


def gaoya(texts: list[str], threads: int) -> Found:
    """gaoya's index: insert all, ask for all, join."""
    from gaoya.minhash import MinHashStringIndex

    index = MinHashStringIndex(hash_size=32, jaccard_threshold=0.7, num_bands=14, band_size=8,
                               analyzer="word", lowercase=True, ngram_range=(5, 5),
                               id_container="vec")  # fmt: skip
    index.par_bulk_insert_docs(list(range(len(texts))), texts)
    parents = list(range(len(texts)))

    def top(i: int) -> int:
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    for i, others in enumerate(index.par_bulk_query(texts)):
        for j in others:
            a, b = sorted((top(i), top(j)))
            parents[b] = a
    return lambda a, b: top(a) == top(b)


def rensa(texts: list[str], threads: int) -> Found:
    """rensa's matrix of signatures; its shingles are made in Python."""
    import re

    from rensa import RMinHash, RMinHashLSH

    sets = []
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        sets.append(list({" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}))
    matrix = RMinHash.digest_matrix_from_token_sets(sets, num_perm=112, seed=1)
    index = RMinHashLSH(threshold=0.72, num_perm=112, num_bands=14)
    flags = index.insert_matrix_and_query_duplicate_flags(matrix)
    return lambda a, b: bool(flags[a] or flags[b])


def compare_in_memory(
    name: str,
    peer: Callable[[list[str], int], Found],
    records: list[dict[str, Any]],
    asked: argparse.Namespace,
    letters: float,
) -> None:
    """Time both in turn."""
    texts = [record["text"] for record in records]
    pairs = []
    try:
        for _ in range(asked.rounds):
            start = time.perf_counter()
            theirs = peer(texts, asked.threads)
            middle = time.perf_counter()
            our = ours(texts, asked.threads)
            pairs.append((middle - start, time.perf_counter() - middle))
    except ImportError as error:
        print(f"{name:10} not compared: {error}; name its environment by --peers")
        return
    print_ratios(name, pairs, letters)
    print(f"{'':10} recall {recall(records, theirs):.4f}, ours {recall(records, our):.4f}")


def print_ratios(name: str, pairs: list[tuple[float, float]], letters: float) -> None:
    """Medians, and the ratios of each round."""
    ratios = [their / our for their, our in pairs]
    their, our = (statistics.median(column) for column in zip(*pairs, strict=True))
    span = f"{statistics.median(ratios):.1f} [{min(ratios):.1f}..{max(ratios):.1f}]"
    speeds = f"{letters / their:.1f} MB/s   ours {our:.2f} s, {letters / our:.0f} MB/s"
    print(f"{name:10} {their:.2f} s, {speeds}   ratio {span}", flush=True)


def compare_machines(
    records: list[dict[str, Any]], asked: argparse.Namespace, letters: float
) -> None:
    """Ours by the code for each machine, in turn: the results must be equal."""
    texts = [record["text"] for record in records]
    seconds: dict[str, list[float]] = {}
    wanted = find_copies(texts, threads=asked.threads)
    for machine in MACHINES * asked.rounds:
        start = time.perf_counter()
        try:
            found = find_copies(texts, threads=asked.threads, machine=machine)
        except ValueError as error:
            print(f"{machine:10} not run: {error}")
            continue
        seconds.setdefault(machine, []).append(time.perf_counter() - start)
        assert np.array_equal(found, wanted), machine
    for machine, some in seconds.items():
        middle = statistics.median(some)
        span = f"[{letters / max(some):.0f}..{letters / min(some):.0f}]"
        print(f"{machine:10} {middle:.3f} s, {letters / middle:.0f} {span} MB/s; results equal")


def judge_pairs(records: list[dict[str, Any]]) -> None:
    """The exact similarity of all pairs of the corpus that share a key."""
    texts = [record["text"] for record in records]
    shingles = make_shingles(ShingleSettings())
    keys, _, sizes = shingles.minhash(texts, bands=14, rows=8, seed=1)
    runs: dict[int, list[int]] = {}
    for i in np.flatnonzero(sizes > 0).tolist():
        for key in keys[i].tolist():
            runs.setdefault(key, []).append(i)
    found = {(a, b) for run in runs.values() for a in run for b in run if a > b}
    alike = np.array([shingles.jaccard(texts[a], texts[b]) for a, b in found])
    shares = ", ".join(f"{(alike >= s).mean():.3f} are {s} alike" for s in (0.5, 0.6, 0.7, 0.8))
    print(f"precision  of the {len(found):,} pairs of all documents that share a key {shares}")


def judge_precision(records: list[dict[str, Any]]) -> None:
    """Pairs that share a key, and clusters, against the exact similarity of every pair."""
    texts = [record["text"] for record in records]
    settings = ShingleSettings()
    shingles = make_shingles(settings)
    exact = exact_pairs([np.unique(shingles.of(text)) for text in texts])
    keys, _, _ = shingles.minhash(texts, bands=14, rows=8, seed=1)
    runs: dict[int, list[int]] = {}
    for i, row in enumerate(keys.tolist()):
        for key in row:
            runs.setdefault(key, []).append(i)
    found = {(a, b) for run in runs.values() for a in run for b in run if a > b}
    print(
        f"precision  of {len(records):,} documents, all pairs: {len(found)} share a key;", end=" "
    )
    shares = {s: sum(exact.get(p, 0) >= s for p in found) / len(found) for s in (0.5, 0.7, 0.8)}
    print(", ".join(f"{share:.3f} of them are {s} alike or more" for s, share in shares.items()))
    for least in (0.7, 0.8, 0.9):
        alike = {pair: s for pair, s in exact.items() if s >= least}
        got = sum(pair in found for pair in alike) / len(alike)
        wanted = statistics.mean(1 - (1 - s**8) ** 14 for s in alike.values())
        said = f"{got:.3f} of {len(alike)} pairs at least {least} alike"
        print(f"{'':10} found {said}; by the formula {wanted:.3f}")


def exact_pairs(sets: list[Any]) -> dict[tuple[int, int], float]:
    """Jaccard similarity of all pairs that have a shingle in common."""
    owners: dict[int, list[int]] = {}
    for i, some in enumerate(sets):
        for shingle in some.tolist():
            owners.setdefault(shingle, []).append(i)
    both: dict[tuple[int, int], int] = {}
    for run in owners.values():
        for place, a in enumerate(run):
            for b in run[:place]:
                both[a, b] = both.get((a, b), 0) + 1
    return {(a, b): n / (len(sets[a]) + len(sets[b]) - n) for (a, b), n in both.items()}


def compare_on_disk(
    records: list[dict[str, Any]], asked: argparse.Namespace, letters: float
) -> None:
    """Our four stages against datatrove's, both with two workers, from JSONL to packed JSONL."""
    python = (asked.peers or Path()) / "bin/python"
    if not python.exists():
        sys.exit("bench: datatrove is needed; name its environment by --peers")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for i in range(4):
            lines = (json.dumps(record, ensure_ascii=False) for record in records[i::4])
            (folder / f"in/{i}.jsonl").write_text("\n".join(lines) + "\n")
        pairs = []
        for _ in range(asked.rounds):
            theirs = run_datatrove(python, folder)
            pairs.append((theirs["seconds"], statistics.median(run_ours(folder, 3))))
        print_ratios("datatrove", pairs, letters)
        kept = {json.loads(line)["id"] for line in packed_lines(folder / "ours/documents")}
        said = json.loads((folder / "ours/work/match/matches.json").read_text())["estimated_recall"]
        print(f"{'':10} ours says of its own recall, of pairs at least 0.7 alike: {said:.4f}")
        print(f"{'':10} removed {theirs['removed']}, ours {len(records) - len(kept)}")
        goes = [record["id"] not in kept for record in records]
        print(f"{'':10} recall {theirs['recall']:.4f}, ours", end=" ")
        print(f"{recall(records, lambda a, b: goes[a] or goes[b]):.4f} (one of the two is gone)")


def packed_lines(folder: Path) -> list[bytes]:
    """The lines of all shards in a folder."""
    from megatron_jobs.text.shards import read_shard, shards_below

    return [line for shard in shards_below(folder) for line in read_shard(shard)]


def run_datatrove(python: Path, folder: Path) -> dict[str, Any]:
    """Its four stages; the seconds are those of the stages alone."""
    shutil.rmtree(folder / "theirs", ignore_errors=True)
    os.sync()
    found: dict[str, Any] = run_apart(
        python, "copies_datatrove.py", folder / "in", folder / "theirs"
    )
    return found


def run_ours(folder: Path, times: int) -> list[float]:
    """The seconds of our four stages, each time."""
    words = (folder / "in", folder / "ours", times)
    found: list[float] = run_apart(Path(sys.executable), "copies_stages.py", *words)
    return found


def run_apart(python: Path, script: str, *words: object) -> Any:
    """What the last line says of a script beside this one, in a process of its own."""
    command = [str(python), str(Path(__file__).with_name(script)), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench: {script} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
