"""The stage: evaluation sets of several shapes, tasks, hits listed, bad sets refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import read_json, tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import decontaminate
from megatron_jobs.stages.decontaminate import Config, Embedding, EvaluationSet
from megatron_jobs.text.shards import read_shard, shards_below
from tests.unit.infer.encoders import write_encoder

ASKED = "which of the seven seas is said to be the saltiest of them all today"
CHOICE = "an inland lake between two old countries that has no outlet at all"


def settings(tmp_path: Path, **more: object) -> Config:
    (tmp_path / "docs.jsonl").write_text(
        "".join(
            json.dumps({"id": f"d{i}", "text": f"Document {i}. {middle} The end of it."}) + "\n"
            for i, middle in enumerate(["", ASKED.upper(), "", CHOICE, ASKED[:40]] * 40)
        )
    )
    item = {"task": {"id": "q1"}, "question": ASKED, "choices": {"text": ["yes", CHOICE]}}
    (tmp_path / "quiz.jsonl").write_text(json.dumps(item) + "\n")
    quiz = EvaluationSet(
        name="quiz",
        input=[tmp_path / "quiz.jsonl"],
        keys=("question", "choices.text"),
        id_key="task.id",
    )
    return Config(input=[tmp_path / "docs.jsonl"], against=[quiz], unit_mb=0.003, **more)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for shard in shards_below(folder) for line in read_shard(shard)]


def test_hits_are_listed_and_tasks_change_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    numbers = decontaminate.run(config, Rank(), tmp_path / "one")
    assert (numbers["records_in"], numbers["documents"], numbers["rejected"]) == (200, 120, 80)
    assert numbers["contaminated.quiz"] == 80
    hits = lines(tmp_path / "one/hits")
    assert {(hit["set"], hit["item"]) for hit in hits} == {("quiz", "q1")}
    found = sorted({str(hit["document"]) for hit in hits})
    assert found == sorted(f"d{i}" for i in range(200) if i % 5 in (1, 3))
    assert {hit["phrase"] for hit in hits if hit["document"] == "d1"} == {
        " ".join(ASKED.split()[at : at + 13]) for at in range(3)
    }
    tasks = [tmp_path / f"task{i}" for i in range(3)]
    for task, folder in enumerate(tasks):
        decontaminate.run(config, replace(Rank(), task=task, tasks=3), folder)
    (tmp_path / "all").mkdir()
    assert decontaminate.gather(config, tmp_path / "all", tasks) == numbers
    for name in decontaminate.OUTPUTS:
        assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name)


@pytest.mark.parametrize("keys", [("stem.text",), ("choices", "stem.text"), ("stem",)])
def test_keys_in_any_order(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """ARC's questions have their text under question.stem: the first key need not hold a string."""
    item = {"id": "q9", "stem": {"text": ASKED}, "choices": [{"label": "A", "text": CHOICE}]}
    config = settings(tmp_path)
    (tmp_path / "quiz.jsonl").write_text(json.dumps(item) + "\n")
    arc = config.against[0].model_copy(update={"keys": keys, "id_key": "id"})
    known = decontaminate.read_phrases(config.model_copy(update={"against": [arc]}))
    assert {owner.item for owners in known.owners.values() for owner in owners} == {"q9"}
    assert known.find(ASKED)
    assert bool(known.find(CHOICE)) == ("choices" in keys)


def test_cut(tmp_path: Path) -> None:
    config = settings(tmp_path, action="cut", margin=1)
    numbers = decontaminate.run(config, Rank(), tmp_path / "out")
    assert (numbers["documents"], numbers["cut"]) == (200, 80)
    kept = lines(tmp_path / "out/documents")
    assert kept[1]["text"] == "Document  end of it."


def test_a_set_that_holds_nothing(tmp_path: Path) -> None:
    config = settings(tmp_path)
    wrong = config.against[0].model_copy(update={"keys": ("question", "answer"), "name": "exam"})
    short = tmp_path / "short.jsonl"
    short.write_text('{"question": "Why?"}\n')
    wrong = wrong.model_copy(update={"input": [short]})
    with pytest.raises(UserError) as caught:
        decontaminate.read_phrases(config.model_copy(update={"against": [wrong]}))
    assert str(caught.value) == (
        "against: exam holds no text of 8 words under question, answer; see its keys"
    )
    short.write_text("no JSON\n")
    with pytest.raises(UserError, match=r"exam: short.jsonl:1: not JSON; an evaluation set must"):
        decontaminate.read_phrases(config.model_copy(update={"against": [wrong]}))


def test_bad_settings(tmp_path: Path) -> None:
    config = settings(tmp_path, least_words=14, margin=2, least_hits=0)
    assert list(all_problems(config)) == [
        ("least_words", "14 must be from 1 to ngram = 13"),
        ("least_hits", "0 must be at least 1"),
        ("margin", "does nothing when contaminated documents are rejected"),
    ]


def test_other_words_by_an_encoder(tmp_path: Path) -> None:
    """Two items with letters changed, which no phrase finds; hits of tasks are those of one."""
    encoder = Embedding(model=write_encoder(tmp_path / "encoder", places=128), min_cosine=0.96)
    config = settings(tmp_path, embedding=encoder)
    texts = [ASKED.replace("saltiest", "saltiezt"), "a short and dry text of other things", ASKED]
    lines_of = [json.dumps({"id": f"d{i}", "text": f"Why. {texts[i % 3]}."}) for i in range(60)]
    (tmp_path / "docs.jsonl").write_text("".join(line + "\n" for line in lines_of))
    numbers = decontaminate.run(config, Rank(), tmp_path / "one")
    assert (numbers["documents"], numbers["rejected"]) == (20, 40)
    assert (numbers["contaminated.quiz"], numbers["similar.quiz"]) == (20, 40)
    rejected = read_json(tmp_path / "one/counts.json")["rejected"]
    assert rejected == {"decontaminate.embedding": 20, "decontaminate.overlap": 20}
    hits = [hit for hit in lines(tmp_path / "one/hits") if hit["document"] == "d0"]
    assert [(hit["item"], hit["asked"], hit["word"]) for hit in hits] == [("q1", ASKED, 1)]
    assert hits[0]["phrase"] == f"{texts[0]}."
    assert 0.96 <= float(str(hits[0]["cosine"])) < 1
    tasks = [tmp_path / f"task{i}" for i in range(2)]
    for task, folder in enumerate(tasks):
        decontaminate.run(config, replace(Rank(), task=task, tasks=2), folder)
    (tmp_path / "all").mkdir()
    assert decontaminate.gather(config, tmp_path / "all", tasks) == numbers
    for name in decontaminate.OUTPUTS:
        assert tree_hash(tmp_path / "all" / name) == tree_hash(tmp_path / "one" / name)


def test_bad_settings_of_the_encoder(tmp_path: Path) -> None:
    none = Embedding(model=tmp_path, min_cosine=0, window_words=0)
    config = settings(tmp_path, action="cut", embedding=none)
    assert list(all_problems(config)) == [
        ("action", "cut is of phrases; documents that embedding finds can be rejected only"),
        (
            "embedding.model",
            f"{tmp_path} has no config.json with a model_type; must be an encoder's folder",
        ),
        ("embedding.min_cosine", "0.0 must be above 0 and at most 1"),
        ("embedding.window_words", "0 must be at least 1"),
    ]
    later = Embedding(model=tmp_path / "made by another job")
    assert list(all_problems(settings(tmp_path, embedding=later))) == []
