#!/usr/bin/env python3
"""Hostile input through `extract` and `filter`: does all of it end up somewhere, at what cost?

    tools/bench/hostile.py [--scale 1.0] [--only line tiny ...]

    line      a line of 1 GB between two records
    packed    the same as gzip, 1 MB long
    object    a record whose text is 1 GB long
    long      records just under the limit of 50 MB: words, no space, one letter, lines
    tiny      10 million documents of one word, every tenth id twice, through both stages
    archive   100,000 pages in a WARC, every tenth member broken or lying, its end cut off

Each case is a process of its own; printed are seconds, the peak of its memory, and its counts; they
must add up. `--scale` makes all of it smaller.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.warcs import packed, page

RULES = ["gopher_quality", "gopher_repetition", "fineweb", "c4", "oscar", "code"]
GOOD = [json.dumps({"id": str(n), "text": f"line {n}"}).encode() for n in range(2)]
BLOCK = b"x" * (1 << 20)
BIG = 1 << 30


def main() -> int:
    """A line a case."""
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(run(*sys.argv[2:4], *map(Path, sys.argv[4:6]))))
        return 0
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    for case in asked.only:
        with tempfile.TemporaryDirectory() as folder:
            make, stages = CASES[case]
            source = Path(folder) / "in"
            source.mkdir()
            make(source, asked.scale)
            for number, stage in enumerate(stages):
                source = measure(case, stage, source, Path(folder) / str(number))
    return 0


def measure(case: str, stage: str, source: Path, out: Path) -> Path:
    """Run a stage in a process of its own; returns its documents."""
    command = [sys.executable, __file__, "--run", case, stage, str(source), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"bench: {case} through {stage} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    counts = found["counts"]
    rejected, quarantined = counts["rejected"], counts["quarantined"]
    total = counts["kept"] + sum(rejected.values()) + sum(quarantined.values())
    assert total == counts["read"], counts
    size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) / 1e6
    cost = f"{found['seconds']:6.1f} s, peak {found['mb']:5,.0f} MB"
    print(
        f"{case:8} {stage:8} {size:6,.0f} MB {cost}:"
        f" {counts['read']:,} read, {counts['kept']:,} kept, rejected {rejected},"
        f" quarantined {quarantined}"
        + (f", duplicate ids {n:,}" if (n := counts["further"].get("duplicate_ids")) else ""),
        flush=True,
    )
    return out / "documents"


def run(case: str, stage: str, source: Path, out: Path) -> dict[str, Any]:
    """In the process of a case."""
    from megatron_jobs.runtime.rank import Rank
    from megatron_jobs.stages import extract
    from megatron_jobs.stages import filter as filtering

    given: dict[str, Any] = {"input": [source], "max_quarantined_share": 1}
    began = time.perf_counter()
    if stage == "extract":
        extract.run(extract.Config.model_validate(given), Rank(), out)
    else:
        given |= {"rules": [{"rule": name} for name in RULES], "language": {}}
        given["judge_all"] = case == "long"  # each rule has to stand it
        filtering.run(filtering.Config.model_validate(given), Rank(), out)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    counts = json.loads((out / "counts.json").read_text())
    return {"seconds": seconds, "mb": peak, "counts": counts}


def make_line(folder: Path, scale: float) -> None:
    with (folder / "a.jsonl").open("wb") as file:
        file.write(GOOD[0] + b"\n")
        for _ in range(int(scale * BIG) >> 20):
            file.write(BLOCK)
        file.write(b"\n" + GOOD[1])


def make_packed(folder: Path, scale: float) -> None:
    block = gzip.compress(BLOCK * 16)
    times = int(scale * BIG) >> 24
    data = gzip.compress(GOOD[0] + b"\n") + block * times + gzip.compress(b"\n" + GOOD[1])
    (folder / "a.jsonl.gz").write_bytes(data)


def make_object(folder: Path, scale: float) -> None:
    with (folder / "a.jsonl").open("wb") as file:
        file.write(GOOD[0] + b'\n{"id": "long", "text": "')
        for _ in range(int(scale * BIG) >> 20):
            file.write(BLOCK)
        file.write(b'"}\n' + GOOD[1])


def make_long(folder: Path, scale: float) -> None:
    size, draw = int(scale * 49e6), random.Random(1)
    words = "".join(f"{draw.randrange(10**9):x} " for _ in range(size // 8))
    texts = {"words": words, "letters": "a " * (size // 2), "none": "x" * size}
    texts |= {
        "lines": "a.\n" * (size // 3),
        "han": "中" * (size // 3),
        "hex": "0x41, " * (size // 6),
    }
    lines = (json.dumps({"id": n, "text": t}, ensure_ascii=False) for n, t in texts.items())
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")


def make_tiny(folder: Path, scale: float) -> None:
    count = int(scale * 10_000_000)

    def lines() -> Iterator[str]:
        for n in range(count):
            yield f'{{"id":"{n - (n % 10 == 9)}","text":"a"}}\n'

    with (folder / "a.jsonl").open("w", buffering=1 << 20) as file:
        file.writelines(lines())


def make_archive(folder: Path, scale: float) -> None:
    draw = random.Random(1)
    with (folder / "a.warc.gz").open("wb") as file:
        for n in range(int(scale * 100_000)):
            text = f"Page {n} says {draw.random()}, and no more than that."
            file.write(broken(n, text, draw) if n % 10 == 9 else packed(page(n, text=text)))
        file.write(packed(page(0))[:-20])


def broken(n: int, text: str, draw: random.Random) -> bytes:
    """One of ways to be wrong: lengths that lie, bytes that changed, noise, invalid UTF-8, NULs."""
    whole = packed(page(n, text=text))
    place = draw.randrange(12, len(whole))
    return draw.choice(
        [
            packed(page(n, text=text, length=draw.choice([0, 7, 10**6, 10**17]))),
            whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :],
            whole[:place],
            whole + draw.randbytes(500),
            packed(page(n).replace(b"Text of page", draw.randbytes(9) + b"\0\0\0")),
        ]
    )


CASES: dict[str, tuple[Callable[[Path, float], None], tuple[str, ...]]] = {
    "line": (make_line, ("filter",)),
    "packed": (make_packed, ("filter",)),
    "object": (make_object, ("extract",)),
    "long": (make_long, ("extract", "filter")),
    "tiny": (make_tiny, ("extract", "filter")),
    "archive": (make_archive, ("extract",)),
}

if __name__ == "__main__":
    sys.exit(main())
