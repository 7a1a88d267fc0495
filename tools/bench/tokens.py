#!/usr/bin/env python3
"""Tokenizing against Megatron-LM's two tools, in pairs, outputs compared to the byte.

    tools/bench/tokens.py --megatron Megatron-LM --tokenizer gpt2 --rounds 5 /usr/share/doc TREE...

The corpus is made of the trees, or given with --corpus. Megatron-LM needs torch and gigatoken in
the Python of --peer-python, its sources in --megatron, and what else it imports in --peer-path.
Each round runs the peer and ours one after the other; printed are the medians and, of the ratios
of each round, the median and the range. A first round is not counted: after it the modules of both
are compiled, and the corpus is in memory. The memory row runs ours alone on 100 MB and on 2 GB, the
tiny row on a million documents.
"""

import argparse
import contextlib
import filecmp
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
ROWS = ("steady", "whole", "workers", "memory", "tiny")
OVERRIDE = """import typing, typing_extensions
if not hasattr(typing, "override"): typing.override = typing_extensions.override
"""
"""Megatron-LM of 2026 imports what Python 3.11 lacks."""
PEER_INNER = """import json, os, sys, time
import gigatoken, numpy
from megatron.core.datasets import indexed_dataset
source, out, tokenizer, eod = sys.argv[1:]
encoder = gigatoken.Tokenizer(tokenizer)
start, used = time.perf_counter(), sum(os.times()[:4])
ids = encoder.encode_files(gigatoken.JsonlFileSource([source], field="text"))
builder = indexed_dataset.IndexedDatasetBuilder(out + ".bin", dtype=numpy.uint16)
builder.add_documents(ids, eod_token=int(eod))
builder.finalize(out + ".idx")
seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - used
print(json.dumps({"seconds": seconds, "cpu": cpu}))
"""
"""What preprocess_data_fast.py does, without its imports and its loading of the tokenizer."""
OUR_INNER = """import json, os, sys, time
from pathlib import Path
from megatron_jobs.runtime.launch import fork_ranks
from megatron_jobs.stages import tokenize
source, out, tokenizer, ranks = sys.argv[1:]
config = tokenize.Config(input=[source], tokenizer=tokenizer, names=False)
tokenize.preload(config)
folder = Path(out)
start, used = time.perf_counter(), sum(os.times()[:4])
ended = fork_ranks(lambda rank: tokenize.run(config, rank, folder), int(ranks),
                   error_file=lambda rank: folder / f"error.{rank}")
assert ended.status == 0, ended
seconds, cpu = time.perf_counter() - start, sum(os.times()[:4]) - used
print(json.dumps({"seconds": seconds, "cpu": cpu}))
"""
"""The stage, without names of documents, which the peer does not keep."""


@dataclass
class Outcome:
    """What one process took."""

    seconds: float
    cpu: float
    """Seconds of all its processes on all cores, which other work on the machine hardly changes."""
    megabytes: float
    """Peak of the memory of all its processes together, what they share counted once."""
    said: str


@dataclass
class Bench:
    """What is measured with."""

    asked: argparse.Namespace
    folder: Path
    corpus: Path

    def ours(self, *command: str) -> Outcome:
        """Run Python on this project."""
        paths = str(HERE.parents[1])
        return measured([sys.executable, *command], {"PYTHONPATH": paths}, self.folder)

    def theirs(self, *command: str) -> Outcome:
        """Run Python on Megatron-LM."""
        site = self.folder / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(OVERRIDE)
        paths = os.pathsep.join(map(str, [self.asked.megatron, *self.asked.peer_path, site]))
        return measured([self.asked.peer_python, *command], {"PYTHONPATH": paths}, self.folder)

    def first(self, megabytes: float) -> Path:
        """The first lines of the corpus, so many of them; all of it over and over when it ends."""
        path = self.folder / f"{megabytes:g}.jsonl"
        left = int(megabytes * 1e6)
        with path.open("wb") as out, self.corpus.open("rb") as source:
            while left > 0:
                lines = source.readlines(min(left, 1 << 24))
                out.writelines(lines)
                left -= sum(map(len, lines))
                if not lines:
                    source.seek(0)
        return path


def main() -> int:
    """Print one line a row."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    add = parser.add_argument
    add("trees", nargs="*", type=Path, help="folders of text, to make the corpus of")
    add("--corpus", type=Path, help="JSONL to take instead")
    add("--megatron", type=Path, required=True, help="sources of Megatron-LM")
    add("--peer-python", default=sys.executable)
    add("--peer-path", nargs="*", default=[], type=Path, help="what else Megatron-LM imports")
    add("--tokenizer", type=Path, required=True, help="folder with a tokenizer.json of GPT-2")
    add("--eod", type=int, default=50256, help="id of its end of text")
    add("--megabytes", type=float, default=209, help="of the steady row")
    add("--rounds", type=int, default=5)
    add("--workers", type=int, default=2)
    add("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    asked = parser.parse_args()
    asked.megatron, asked.tokenizer = asked.megatron.resolve(), asked.tokenizer.resolve()
    asked.peer_path = [path.resolve() for path in asked.peer_path]
    with tempfile.TemporaryDirectory(prefix="bench-tokens-") as name:
        folder = Path(name)
        bench = Bench(asked, folder, asked.corpus or make(asked, folder / "corpus.jsonl"))
        for row in asked.rows:
            globals()[f"row_{row}"](bench)
    return 0


def make(asked: argparse.Namespace, out: Path) -> Path:
    """The corpus of the trees."""
    sys.path.insert(0, str(HERE))
    from corpus import make_corpus

    print(f"corpus: {make_corpus(asked.trees, out, int(asked.megabytes * 1e6))}", flush=True)
    return out


def measured(command: list[str], variables: dict[str, str], folder: Path) -> Outcome:
    """Run a command; its memory is looked at every 10 ms."""
    peak = [0.0]
    compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            command,
            env=os.environ | compiled | variables,
            cwd=folder,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        watcher = threading.Thread(target=watch, args=(process, peak))
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        watcher.join()
        said.seek(0)
        text = said.read()
    if status:
        sys.exit(f"bench: {' '.join(command)} ended with {status}:\n{text[-2000:]}")
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return Outcome(seconds, cpu, peak[0], text)


def watch(process: "subprocess.Popen[bytes]", peak: list[float]) -> None:
    """Note the largest sum of what a process and those below it hold."""
    root = psutil.Process(process.pid)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error, OSError):  # one of them has just ended
            tree = [root, *root.children(recursive=True)]
            peak[0] = max(peak[0], sum(map(held, tree)) / 1e6)
        time.sleep(0.01)


def held(process: psutil.Process) -> int:
    """Bytes that a process holds: of a page that n share, an nth (proc_pid_smaps(5), Pss)."""
    for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    return 0


def compare(
    what: str, size: float, rounds: int, theirs: Callable[[], Outcome], ours: Callable[[], Outcome]
) -> None:
    """Run both in turn and print what they took."""
    found: list[tuple[Outcome, Outcome]] = []
    for _ in range(1 + rounds):
        found.append((theirs(), ours()))
    del found[0]
    ratios = [their.seconds / our.seconds for their, our in found]
    cpu = [their.cpu / our.cpu for their, our in found]
    memory = [our.megabytes / their.megabytes for their, our in found]
    peer, our = (
        f"{statistics.median(size / 1e6 / one.seconds for one in column):6.1f} MB/s "
        f"{statistics.median(one.megabytes for one in column):5.0f} MB"
        for column in zip(*found, strict=True)
    )
    print(f"{what:34} peer {peer}   ours {our}")
    print(f"{'':34} faster {span(ratios)}   less cpu {span(cpu)}   memory {span(memory)}")
    sys.stdout.flush()


def span(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


def row_steady(bench: Bench) -> None:
    """The work alone: imports and loading of the tokenizer left out of both."""
    source = bench.first(bench.asked.megabytes)
    their, our = bench.folder / "their", bench.folder / "our"

    def theirs() -> Outcome:
        tokenizer = str(bench.asked.tokenizer / "tokenizer.json")
        command = ["-c", PEER_INNER, str(source), str(their), tokenizer, str(bench.asked.eod)]
        return inner(bench.theirs(*command))

    def ours() -> Outcome:
        shutil.rmtree(our, ignore_errors=True)
        our.mkdir()
        command = ["-c", OUR_INNER, str(source), str(our), str(bench.asked.tokenizer)]
        outcome = inner(bench.ours(*command, str(bench.asked.workers)))
        check(their, our / "tokens/tokens")
        return outcome

    compare("steady, fast path", source.stat().st_size, bench.asked.rounds, theirs, ours)


def inner(outcome: Outcome) -> Outcome:
    """The time that the process itself has taken."""
    found = json.loads(outcome.said.strip().splitlines()[-1])
    return replace(outcome, seconds=found["seconds"], cpu=found["cpu"])


def row_whole(bench: Bench) -> None:
    """Whole processes on 42 MB, the peer encoding with gigatoken."""
    tool, more = "tools/preprocess_data_fast.py", ["--use-gigatoken"]
    compare_tools(bench, "whole process, fast path", tool, more)


def row_workers(bench: Bench) -> None:
    """Whole processes on 42 MB, against the customary tool."""
    more = ["--workers", str(bench.asked.workers)]
    compare_tools(bench, "whole process, preprocess_data", "tools/preprocess_data.py", more)


def compare_tools(bench: Bench, what: str, tool: str, more: list[str]) -> None:
    """Both tools with the customary flags."""
    source = bench.first(42)
    flags = ["--input", str(source), "--append-eod", "--tokenizer-type", "HuggingFaceTokenizer"]
    flags += ["--tokenizer-model", str(bench.asked.tokenizer)]
    their, our = bench.folder / "their", bench.folder / "our"

    def theirs() -> Outcome:
        peer = str(bench.asked.megatron / tool)
        return bench.theirs(peer, *flags, *more, "--output-prefix", str(their))

    def ours() -> Outcome:
        mine = [str(HERE.parent / "preprocess_data.py"), *flags, "--output-prefix", str(our)]
        outcome = bench.ours(*mine, "--workers", str(bench.asked.workers))
        check(Path(f"{their}_text_document"), Path(f"{our}_text_document"))
        return outcome

    compare(what, source.stat().st_size, bench.asked.rounds, theirs, ours)


def check(theirs: Path, ours: Path) -> None:
    """Stop unless both token files are equal to the byte."""
    for suffix in (".bin", ".idx"):
        pair = (f"{theirs}{suffix}", f"{ours}{suffix}")
        if not filecmp.cmp(*pair, shallow=False):
            sys.exit(f"bench: {pair[0]} and {pair[1]} differ")


def row_memory(bench: Bench) -> None:
    """Ours at 100 MB and 2 GB."""
    for megabytes in (100, 2000):
        run_alone(bench, f"ours, {megabytes} MB", bench.first(megabytes))


def row_tiny(bench: Bench) -> None:
    """A million documents of a few words."""
    source = bench.folder / "tiny.jsonl"
    with source.open("w") as out:
        for number in range(1_000_000):
            out.write(f'{{"id": "tiny-{number}", "text": "document {number} of many"}}\n')
    run_alone(bench, "ours, 1,000,000 tiny documents", source)


def run_alone(bench: Bench, what: str, source: Path) -> None:
    """Print rate and memory of ours."""
    our = bench.folder / "our"
    shutil.rmtree(our, ignore_errors=True)
    our.mkdir()
    command = ["-c", OUR_INNER, str(source), str(our), str(bench.asked.tokenizer)]
    outcome = inner(bench.ours(*command, str(bench.asked.workers)))
    facts = json.loads((our / "tokens/tokens.json").read_text())
    megabytes = source.stat().st_size / 1e6
    print(
        f"{what:34} {megabytes / outcome.seconds:.0f} MB/s, "
        f"{facts['documents'] / outcome.seconds:,.0f} documents/s, {outcome.megabytes:.0f} MB",
        flush=True,
    )
    shutil.rmtree(our)
    source.unlink()


if __name__ == "__main__":
    sys.exit(main())
