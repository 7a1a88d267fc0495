"""Where documents of a run went, through the command line; numbers against the index's samples."""

import json
from pathlib import Path

import pytest

from megatron_jobs.cli import main
from megatron_jobs.jobs.traces import trace_documents
from megatron_jobs.text.record import Record, to_line
from megatron_jobs.text.shards import write_shard
from tests.runs import make_job
from tests.unit.data.test_ledger import open_ledger, token_id

STEPS, ALL_STEPS, SIZE = 9, 18, 8


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Documents of two shards, an index of two sources, and 9 of 18 steps trained."""
    folder = make_job(tmp_path, "clean", stage="decontaminate")
    for number, names in enumerate((["a", "s0-d3"], ["s1-d7", "a"])):
        with write_shard(folder.path / f"documents/{number:06d}.jsonl.zst") as shard:
            for name in names:
                shard.write(to_line(Record(name, "text")))
    ledger = open_ledger(tmp_path, sources=2, packing="none")
    settings = {
        "index": str(ledger.index.folder),
        "batch": {"global_size": SIZE},
        "steps": ALL_STEPS,
    }
    pretrain = make_job(tmp_path, "pretrain", stage="pretrain", after=["clean"], **settings)
    lines = [json.dumps({"step": step, "kind": "train"}) for step in range(1, STEPS + 1)]
    (pretrain.path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    for step in (3, 6, 9):
        (pretrain.path / f"checkpoints/step-{step:08}").mkdir(parents=True)
    return tmp_path


def slow_steps(run: Path, source: int, document: int) -> set[int]:
    """Steps of the training whose samples hold a token of the document, by reading all samples."""
    ledger = open_again(run / "index")
    wanted = {token_id(source, 2 * document), token_id(source, 2 * document + 1)}
    samples = ledger.splits["train"]
    numbers = (n for n in range(len(samples)) if wanted & set(samples[n].tolist()))
    return {number // SIZE + 1 for number in numbers if number < ALL_STEPS * SIZE}


def open_again(index: Path):  # type: ignore[no-untyped-def]
    from megatron_jobs.data.ledger import Ledger
    from megatron_jobs.data.sample_index import SampleIndex

    return Ledger(SampleIndex.open(index))


def test_a_document_is_found_everywhere(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "find", str(run), "s1-d7", "--json"]) == 0
    (trace,) = json.loads(capsys.readouterr().out)["traces"]
    assert trace["shards"] == ["clean/documents/000001.jsonl.zst:1"]
    assert trace["tokens"] == [{"file": str(run / "source1"), "document": 7}]
    steps = slow_steps(run, 1, 7)
    assert trace["steps"]["pretrain"] == sorted(step for step in steps if step <= STEPS)
    assert trace["planned"]["pretrain"] == sorted(step for step in steps if step > STEPS)
    first = trace["steps"]["pretrain"][0]
    saved = [step for step in (3, 6, 9) if step >= first]
    folders = [str(run / f"pretrain/checkpoints/step-{step:08}") for step in saved]
    assert trace["checkpoints"]["pretrain"] == folders


def test_in_words(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "ids.txt").write_text("a\n\nnobody\n")
    assert main(["data", "find", str(run), "--ids", str(run / "ids.txt")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a",
        "  shard clean/documents/000000.jsonl.zst:1",
        "  shard clean/documents/000001.jsonl.zst:2",
        "nobody",
        "  found nowhere",
    ]


def test_of_many_ids_those_that_are_there_are_found(run: Path) -> None:
    names = [f"s{source}-d{document}" for source in range(2) for document in range(40)]
    for trace in trace_documents(run, names).traces:
        source, document = trace.id.removeprefix("s").split("-d")
        steps = sorted([*trace.steps.get("pretrain", []), *trace.planned.get("pretrain", [])])
        assert steps == sorted(slow_steps(run, int(source), int(document))), trace.id


def test_documents_of_a_step(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "step", str(run), "2"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["sample", "source", "document", "tokens"]
    samples = open_again(run / "index").splits["train"]
    told: dict[int, int] = {}
    for sample, _, name, tokens in rows[1:]:
        source, document = name.removeprefix("s").split("-d")
        wanted = {token_id(int(source), 2 * int(document) + half) for half in range(2)}
        assert wanted & set(samples[int(sample)].tolist())
        told[int(sample)] = told.get(int(sample), 0) + int(tokens)
    assert told == dict.fromkeys(range(SIZE, 2 * SIZE), 33)


def test_what_cannot_be_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "step", str(run), "1000"]) == 2
    assert capsys.readouterr() == ("", "mj data: step: found 1000, pretrain has 1 to 18\n")
    assert main(["data", "step", str(run), "1", "--job", "tune"]) == 2
    assert "job: found tune;" in capsys.readouterr().err
    assert main(["data", "find", str(run)]) == 2
    assert "found no id" in capsys.readouterr().err
    empty = run / "empty"
    make_job(empty, "other")
    assert main(["data", "find", str(empty), "x"]) == 2
    assert "no job in it has records or tokens, or trains on an index" in capsys.readouterr().err
