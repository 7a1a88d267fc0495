"""The stage `extract`: counts that add up, ids that are told apart, kills that cost nothing."""

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import extract
from megatron_jobs.text.shards import read_shard, shards_below
from tests.stages import shorten
from tests.warcs import packed, page, record, write


def records(folder: Path, kind: str = "documents") -> list[dict[str, Any]]:
    return [json.loads(line) for shard in shards_below(folder / kind) for line in read_shard(shard)]


def corpus(folder: Path) -> Path:
    """12 archives of 10 pages and other records, one of them cut short; a page; a text; lines."""
    folder.mkdir()
    for place, name in enumerate("abcdefghijkl"):
        pages = [page(n + 10 * place) for n in range(10)]
        others = [record(b"", kind="request"), record(b"\0\1", Content_Type="image/png")]
        data = packed(*pages, *others, record(b"<p>", kind="resource", Content_Type="image/png"))
        write(folder / f"{name}.warc.gz", data[:-40] if name == "c" else data)
    (folder / "page.html").write_text("<title>T</title><p>The only text of a page.")
    (folder / "text.txt").write_bytes("Größe".encode("latin-1"))
    lines = [{"id": str(n), "text": f"line {n}"} for n in range(20)]
    (folder / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def settings(folder: Path, **more: object) -> extract.Config:
    return extract.Config.model_validate({"input": [folder], "unit_mb": 0.002, **more})


def test_everything_is_somewhere(tmp_path: Path) -> None:
    numbers = extract.run(settings(corpus(tmp_path / "in")), Rank(), tmp_path / "out")
    assert numbers["records_in"] == 120 + 24 + 2 + 20
    assert numbers["documents"] == 120 + 2 + 20
    assert numbers["rejected"] == 23
    assert numbers["quarantined"] == 1
    assert numbers["skipped"] == 12
    verdicts = Counter(r["verdict"]["rule"] for r in records(tmp_path / "out", "rejected"))
    assert verdicts == {"extract.not_html": 23}
    assert [r["reason"] for r in records(tmp_path / "out", "quarantined")] == ["cut short"]
    found = {r["id"]: r for r in records(tmp_path / "out")}
    assert found["urn:uuid:7"]["text"] == "Text of page 7."
    assert found["in/page.html"]["text"] == "The only text of a page."
    assert found["in/text.txt"]["text"] == "Größe"
    counts = json.loads((tmp_path / "out/counts.json").read_text())
    assert counts["skipped"] == {"request": 12}


@pytest.mark.parametrize("tasks", [2, 7])
def test_tasks_give_what_one_gives(tmp_path: Path, tasks: int) -> None:
    """Ids 0 to 19 stand in an archive and among the lines; four lines more are called alike."""
    folder = corpus(tmp_path / "in")
    with (folder / "lines.jsonl").open("a") as file:
        file.writelines('{"id": "5", "text": "again"}\n' for _ in range(4))
    for policy in ("count", "rename"):
        config = settings(folder, duplicate_ids=policy)
        one, both = tmp_path / f"one-{policy}", tmp_path / f"all-{policy}"
        extract.run(config, Rank(), one)
        folders = [tmp_path / f"{policy}{task}" for task in range(tasks)]
        for task, place in enumerate(folders):
            extract.run(config, replace(Rank(), task=task, tasks=tasks), place)
        for _ in range(2):  # a gather that is done again gives the same
            numbers = extract.gather(config, both, folders)
            assert numbers["duplicate_ids"] == 4
            for name in extract.OUTPUTS:
                assert tree_hash(both / name) == tree_hash(one / name), (policy, name)
        counts = json.loads((both / "counts.json").read_text())
        assert counts["duplicate_ids"] == {"5": 5}
        names = Counter(str(r["id"]) for r in records(both))
        renamed = dict.fromkeys(["5", *(f"5#{n}" for n in range(2, 6))], 1)
        wanted = {"5": 5} if policy == "count" else renamed
        assert {n: c for n, c in names.items() if n.startswith("5")} == wanted
    extract.run(settings(folder, duplicate_ids="rename"), Rank(), tmp_path / "one-rename")
    again, whole = tmp_path / "one-rename/documents", tmp_path / "all-rename/documents"
    assert tree_hash(again) == tree_hash(whole), "run once more, nothing is renamed twice"


def test_a_task_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    """Each run is ended without warning, the next goes on; the output is that of one run."""
    folder = corpus(tmp_path / "in")
    config = settings(folder)
    extract.run(config, Rank(), tmp_path / "whole")
    program = (
        "import sys; from pathlib import Path; from megatron_jobs.stages import extract;"
        "from megatron_jobs.runtime.rank import Rank;"
        f"extract.run(extract.Config(input=[Path({str(folder)!r})], unit_mb=0.002), Rank(),"
        f" Path({str(tmp_path / 'out')!r}))"
    )
    noise, kills = random.Random(1), 0
    for _ in range(40):
        process = subprocess.Popen([sys.executable, "-c", program])
        wait_until_begun(tmp_path / "out", process)
        time.sleep(noise.uniform(0, 0.02))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if kills >= 4:
            break
    left = list((tmp_path / "out").glob("*/*.partial"))
    extract.run(config, Rank(), tmp_path / "out")
    for name in extract.OUTPUTS:
        assert tree_hash(tmp_path / "out" / name) == tree_hash(tmp_path / "whole" / name), name
    assert kills >= 2
    assert not any(p.exists() for p in left), "what killed runs left behind is removed"


def wait_until_begun(folder: Path, process: "subprocess.Popen[bytes]") -> None:
    done = len(list(folder.glob("counts/*.json")))
    while process.poll() is None and len(list(folder.glob("counts/*.json"))) == done:
        time.sleep(0.002)


def test_pages_are_refused_where_texts_are_wanted(tmp_path: Path) -> None:
    config = shorten.Config(input=[corpus(tmp_path / "in")])
    with pytest.raises(UserError) as caught:
        shorten.run(config, Rank(), tmp_path / "out")
    assert str(caught.value) == (
        "input: in/a.warc.gz holds pages, this stage reads texts; "
        "give it the documents of an `extract` job"
    )


def test_missing_packages_are_told_before_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "find_spec", lambda name: None)
    found = list(extract.Config(input=[Path("x")], mode="careful").problems())
    assert ("mode", 'trafilatura is not installed; pip install "megatron-jobs[data]"') in found
    assert len(list(extract.Config(input=[Path("x")]).problems())) == 2


def test_all_of_one_format(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/no-name").write_bytes(packed(page(1), page(2)))
    config = extract.Config(input=[tmp_path / "in"], format="warc")
    with pytest.raises(UserError):  # its name does not say that it is packed
        extract.run(config, Rank(), tmp_path / "out")
    (tmp_path / "in/no-name").write_bytes(page(1) + page(2))
    assert extract.run(config, Rank(), tmp_path / "out")["documents"] == 2
    found = dict(extract.Config(input=[tmp_path], format="wrac").problems())
    assert "warc" in found["format"]
