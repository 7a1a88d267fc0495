"""The shipped plan from pages to tokens, on real pages, and its report in a real browser."""

import json
import os
import random
import re
import statistics
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from tokenizers import Tokenizer

from megatron_jobs.data.document_names import DocumentNames
from megatron_jobs.data.ledger import Ledger
from megatron_jobs.data.sample_index import SampleIndex
from megatron_jobs.data.token_file import TokenFile
from megatron_jobs.runtime.files import read_json
from megatron_jobs.text.shards import SUFFIX, read_shard
from tests.end.browser import probe_page

ROOT = Path(__file__).parents[2]
EXTRACTS = ("web", "handbook", "kernel", "mails", "spam", "books")
FUNNEL = ("filter", "deduplicate", "paragraphs", "repeats", "redact", "decontaminate")
SOURCES = ("web", "mails", "books", "handbook", "kernel")
MAILS, KERNEL = 1, 4
"""Their places among the sources."""
PROBE = """
<script>
const found = {errors: []};
addEventListener("error", (event) => found.errors.push(event.message));
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const root = document.documentElement;
  found.page = [root.scrollWidth, innerWidth];
  found.wide = [...document.querySelectorAll("body *")].filter((element) =>
    !element.closest(".scroll, .unseen, .track, #tip") &&
    element.getBoundingClientRect().right > innerWidth + 0.5).map((element) => element.outerHTML);
  found.fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
  found.sections = [...document.querySelectorAll("section")].map((section) => section.id);
  found.plots = [...document.querySelectorAll("section")].filter((section) =>
    [...section.querySelectorAll(".part")].some((part) => {
      const box = part.getBoundingClientRect();
      return box.width * box.height > 20;
    })).map((section) => section.id);
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""


def mj(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "megatron_jobs.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=900
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole plan, in an empty folder."""
    folder = tmp_path_factory.mktemp("web to tokens")
    done = mj("run", "plans/web-to-tokens.yaml", "--run", "r", cwd=folder)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "r"


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(folder.rglob(f"*{SUFFIX}"))
    found = (json.loads(line) for file in files for line in read_shard(file))
    return {record["id"]: record for record in found}


def numbers(run: Path, job: str) -> dict[str, float]:
    found: dict[str, float] = read_json(run / job / "receipt.json")["numbers"]
    return found


def test_every_record_is_somewhere(run: Path) -> None:
    """In = out + rejected + quarantined in each stage; each reads what the one before it kept."""
    flow = 0.0
    for job in (*EXTRACTS, *FUNNEL):
        told = numbers(run, job)
        kinds = ("documents", "rejected", "quarantined")
        assert told["records_in"] == sum(told[kind] for kind in kinds), job
        if job in FUNNEL:
            assert told["records_in"] == flow, job
            flow = told["documents"]
        else:
            flow += told["documents"]
        kept = sorted((run / job / "documents").rglob(f"*{SUFFIX}"))
        assert sum(1 for file in kept for _ in read_shard(file)) == told["documents"], job
    assert flow > 3000
    assert numbers(run, "quality")["accuracy"] > 0.95
    assert numbers(run, "deduplicate")["rejected"] > 1000


def test_what_is_left_is_clean(run: Path) -> None:
    last = documents(run / "decontaminate/documents")
    before = documents(run / "repeats/documents")
    address = re.compile(r"[\w.+-]+@[\w-]+\.(?:com|org|net|de|fr)\b")
    with_address = [name for name, record in before.items() if address.search(record["text"])]
    assert len(with_address) > 500
    assert not [name for name in with_address if address.search(last[name]["text"])]
    shingles = [
        five_words(record["text"]) for record in random.Random(1).sample(in_order(last), 300)
    ]
    for place, one in enumerate(shingles):
        for other in shingles[:place]:
            assert len(one & other) <= 0.95 * len(one | other)
    kinds = {record["language"] for record in last.values()}
    assert {"en", "de", "ja"} <= kinds <= {"en", "de", "es", "fr", "it", "no", "pt", "ru", "ja"}


def in_order(records: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [records[name] for name in sorted(records)]


def five_words(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}


def test_no_paragraph_stands_twice(run: Path) -> None:
    """Those of some length, their letters alone; near copies of whole documents were taken out."""
    before = paragraphs(run / "deduplicate/documents")
    after = paragraphs(run / "paragraphs/documents")
    assert sum(count > 1 for count in before.values()) > 200
    assert set(after) <= set(before)
    assert [text for text, count in after.items() if count > 1] == []


def paragraphs(folder: Path) -> Counter[str]:
    texts = [record["text"] for record in documents(folder).values()]
    parts = (" ".join(part.split()) for text in texts for part in re.split(r"\n\s*\n", text))
    return Counter(part for part in parts if len(part) > 200)


def test_other_suites_read_what_was_exported(run: Path) -> None:
    last = documents(run / "decontaminate/documents")
    table = pyarrow.dataset.dataset(run / "parquet/documents").to_table()
    texts = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    assert texts == {name: record["text"] for name, record in last.items()}
    shards = read_json(run / "mds/documents/index.json")["shards"]
    assert sum(shard["samples"] for shard in shards) == numbers(run, "mds")["documents"]
    assert numbers(run, "mds")["documents"] == numbers(run, "blend")["documents"]


def test_vocabularies_are_compared(run: Path) -> None:
    """GPT-2 has no Cyrillic words, cl100k and Llama have; ours learnt from these very texts."""
    found = read_json(run / "fertility/report.json")["tokenizers"]
    sizes = {"ours": 16384, "GPT-2": 50257, "cl100k": 100277, "Llama": 32000}
    assert {name: one["vocabulary"] for name, one in found.items()} == sizes
    russian = {name: one["languages"]["ru"]["bytes_per_token"] for name, one in found.items()}
    assert russian["GPT-2"] < 2 < 4 < min(russian[name] for name in ("ours", "cl100k", "Llama"))
    assert all(one["all"]["texts"] == found["ours"]["all"]["texts"] for one in found.values())


def test_usual_words_come_first(run: Path) -> None:
    """By the perplexities of the documents that samples are made of: first tenth, last half."""
    score = {
        name: record["metadata"]["perplexity"]
        for name, record in documents(run / "decontaminate/documents").items()
    }
    ledger = Ledger(SampleIndex.open(run / "blend/index"))

    def scores(samples: range, source: int) -> list[float]:
        found = [one for sample in samples for one in ledger.passages("train", sample)]
        return [score[ledger.name(source, one.sequence)] for one in found if one.source == source]

    for source in (MAILS, KERNEL):
        first, last = scores(range(400), source), scores(range(4000, 8000), source)
        assert statistics.median(first) < 0.8 * statistics.median(last)


def test_licences_of_what_training_reads(run: Path) -> None:
    facts = read_json(run / "made-of/blend_report.json")
    groups = facts["licence_groups"]
    assert set(groups) == {"public domain", "copyleft code", "share-alike", "unknown"}
    assert sum(groups.values()) == pytest.approx(facts["tokens"])
    names = [f"{source}-tokens" for source in SOURCES]
    assert [part["name"] for part in facts["parts"]] == names
    tokens = numbers(run, "blend")["train_samples"] * 512
    assert 0.98 * tokens < facts["tokens"] <= tokens


@pytest.mark.parametrize("source", SOURCES)
def test_tokens_are_those_of_the_documents(run: Path, source: str) -> None:
    """Documents drawn by chance, encoded by the library itself."""
    tokenizer = Tokenizer.from_file(str(run / "tokenizer/tokenizer/tokenizer.json"))
    texts = documents(run / "decontaminate/documents" / source)
    tokens = TokenFile.open(run / f"{source}-tokens/tokens/tokens")
    names = DocumentNames.open(run / f"{source}-tokens/tokens/tokens")
    assert len(tokens) == len(names) == len(texts)
    eod = tokenizer.token_to_id("<|endoftext|>")
    for place in random.Random(source).sample(range(len(names)), 10):
        ids = tokenizer.encode(texts[names[place]]["text"], add_special_tokens=False).ids
        assert tokens.read(place).tolist() == [*ids, eod]


def test_verdicts_and_documents_can_be_looked_up(run: Path) -> None:
    done = mj("data", "verdicts", str(run), "filter", cwd=run)
    assert done.returncode == 0, done.stderr
    assert "classifier.too_low_quality" in done.stdout
    name = DocumentNames.open(run / "mails-tokens/tokens/tokens")[7]
    found = mj("data", "find", str(run), name, cwd=run)
    assert found.returncode == 0, found.stderr
    assert "decontaminate/documents/mails/" in found.stdout


@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_in_a_browser(browser: str, run: Path, width: int) -> None:
    found = probe_page(browser, run / "report/report.html", PROBE, width=width)
    assert found["page"] == [width, width]
    assert found["wide"] == []
    assert found["fetched"] == []
    plotted = {"funnel", "what-the-rules-took", "languages", "lengths", "licences", "copies"}
    plotted |= {"personal-data", "tokens", "vocabularies", "blend", "who-is-spoken-of"}
    assert plotted <= set(found["plots"]) <= set(found["sections"])
