#!/usr/bin/env python3
"""Pages a second of the stage `extract` beside other ways, on one web archive of real pages.

    tools/bench/extract.py --pages FOLDER_OF_HTML [--most 2000] [--rounds 5] [--peers PYTHON]

fast stands beside FastWARC + Resiliparse in a plain loop (no normal form, no verdicts, no counts),
careful beside datatrove's WarcReader + Trafilatura. PYTHON has fastwarc, resiliparse, zstandard
and datatrove[io] with trafilatura and warcio; what it lacks is left out, and said. Each round runs
both one after the other, each in a process of its own, without imports; printed are the medians,
the median of the ratios with their range, and how many pages gave a text.
"""

import argparse
import gzip
import importlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
PAIRS = (("fast", "resiliparse"), ("careful", "datatrove"))


def make_archive(folder: Path, most: int, out: Path) -> int:
    """A WARC with the pages of a folder, one member of gzip a record; returns their number."""
    files = [path for path in sorted(folder.rglob("*.html")) if path.is_file()]
    files = files[:: max(1, len(files) // most)][:most]
    with out.open("wb") as file:
        for number, path in enumerate(files):
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
            block = head + path.read_bytes()
            lines = [
                "WARC/1.0",
                "WARC-Type: response",
                f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>",
                "WARC-Date: 2024-01-01T00:00:00Z",
                f"WARC-Target-URI: http://example.org/{number}",
                "Content-Type: application/http; msgtype=response",
                f"Content-Length: {len(block)}",
            ]
            record = "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"
            file.write(gzip.compress(record, 6))
    return len(files)


def ours(mode: str, warc: Path, out: Path) -> dict[str, float]:
    """Our stage; called in a process of its own."""
    for name in ("resiliparse.extract.html2text", "trafilatura", "megatron_jobs.text.passes"):
        importlib.import_module(name)
    from megatron_jobs.runtime.rank import Rank
    from megatron_jobs.stages import extract

    config = extract.Config.model_validate({"input": [warc], "mode": mode})
    began, worked = time.perf_counter(), time.process_time()
    numbers = extract.run(config, Rank(), out)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu": time.process_time() - worked,
        "pages": numbers["documents"],
    }


def measured(command: list[str], out: Path) -> dict[str, float] | None:
    """What a process prints in its last line; None, and why, when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    for place in (out, Path(f"{out}.logs")):
        if place.is_dir():
            shutil.rmtree(place)
    if done.returncode:
        print(f"  left out: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
        return None
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def compare(mode: str, peer: str, warc: Path, given: argparse.Namespace) -> None:
    """Rounds of both, one after the other."""
    folder, ratios, work, last = warc.parent, [], [], []
    for number in range(given.rounds):
        out = folder / f"{mode}{number}"
        mine = measured([sys.executable, __file__, "--run", mode, str(warc), str(out)], out)
        out = folder / f"{peer}{number}"
        command = [given.peers, str(HERE / "extract_peers.py"), peer, str(warc), str(out)]
        theirs = measured(command, out)
        if mine is None or theirs is None:
            return
        ratios.append(theirs["seconds"] / theirs["pages"] / (mine["seconds"] / mine["pages"]))
        work.append(theirs["cpu"] / mine["cpu"])
        last.append((mine, theirs))
    for name, place in ((f"ours, {mode}", 0), (peer, 1)):
        speed = statistics.median(pair[place]["pages"] / pair[place]["seconds"] for pair in last)
        print(f"  {name:20} {speed:8.0f} pages/s, {last[-1][place]['pages']:.0f} pages with text")
    span = f"[{min(ratios):.2f}..{max(ratios):.2f}]"
    cpu = f"processor time {statistics.median(work):.2f}"
    print(f"  {statistics.median(ratios):.2f}x {span}, {cpu}, {len(ratios)} rounds")


def main() -> None:
    """Read the command line; print a table."""
    if sys.argv[1:2] == ["--run"]:
        print(json.dumps(ours(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pages", type=Path, required=True)
    parser.add_argument("--most", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=sys.executable)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for (mode, peer), share in zip(PAIRS, (1, 10), strict=True):
            warc = Path(folder) / f"{mode}.warc.gz"
            count = make_archive(given.pages, given.most // share, warc)
            print(f"{mode}: {count} pages, {warc.stat().st_size / 1e6:.1f} MB packed")
            compare(mode, peer, warc, given)


if __name__ == "__main__":
    main()
