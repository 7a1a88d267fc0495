#!/usr/bin/env python3
"""Pages of a web archive to JSON lines by other means: what tools/bench/extract.py runs.

    extract_peers.py resiliparse|datatrove WARC OUT

resiliparse is FastWARC with Resiliparse's main content in a plain loop, datatrove its WarcReader,
Trafilatura and JsonlWriter with one worker. The last line is JSON: seconds without imports, pages.
"""

import gzip
import importlib
import json
import sys
import time
from pathlib import Path


def resiliparse(warc: Path, out: Path) -> int:
    """The loop that its documentation shows."""
    import zstandard
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    pages = 0
    with out.open("wb") as file, zstandard.ZstdCompressor().stream_writer(file) as stream:
        for record in ArchiveIterator(str(warc), record_types=WarcRecordType.response):
            if not (record.http_content_type or "").startswith("text/html"):
                continue
            data = record.reader.read()
            html = bytes_to_str(data, detect_encoding(data))
            text = extract_plain_text(html, main_content=True, alt_texts=False)
            if text.strip():
                line = {
                    "id": record.record_id,
                    "text": text,
                    "url": record.headers["WARC-Target-URI"],
                }
                stream.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
                pages += 1
    return pages


def datatrove(warc: Path, out: Path) -> int:
    """Its own pipeline."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.readers import WarcReader
    from datatrove.pipeline.writers.jsonl import JsonlWriter

    reader = WarcReader(str(warc.parent), glob_pattern=warc.name)
    stages = [reader, Trafilatura(timeout=10), JsonlWriter(str(out))]
    LocalPipelineExecutor(stages, tasks=1, workers=1, logging_dir=f"{out}.logs").run()
    files = list(out.glob("*.jsonl.gz"))
    return sum(sum(1 for _ in gzip.open(file)) for file in files)


IMPORTS = {
    "resiliparse": ("fastwarc.warc", "resiliparse.extract.html2text", "zstandard"),
    "datatrove": (
        "datatrove.executor",
        "datatrove.pipeline.extractors",
        "datatrove.pipeline.readers",
        "datatrove.pipeline.writers.jsonl",
        "trafilatura",
    ),
}
"""Paid for before the clock starts."""


if __name__ == "__main__":
    what, source, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    for module in IMPORTS[what]:
        importlib.import_module(module)
    began, worked = time.perf_counter(), time.process_time()
    found = {"resiliparse": resiliparse, "datatrove": datatrove}[what](source, place)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "cpu": time.process_time() - worked, "pages": found}))
