"""The stage of perplexity models: what it learns, writes and refuses."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import ByteLevelBPETokenizer

from megatron_jobs.errors import UserError
from megatron_jobs.runtime.files import tree_hash
from megatron_jobs.runtime.rank import Rank
from megatron_jobs.stages import perplexity_model
from megatron_jobs.text.perplexity import load_perplexity
from tests.unit.text.test_linear_model import texts_of

FRENCH = "la maison est grande et le jardin est petit derrière la rivière"


def corpus(folder: Path) -> Path:
    path = folder / "in.jsonl"
    lines = [{"text": text, "language": "en", "source": "a"} for text in texts_of("good", 150)]
    lines += [{"text": f"{FRENCH} {i}", "language": "fr", "source": "b"} for i in range(50)]
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\nnone")
    return path


def settings(folder: Path, **changed: Any) -> perplexity_model.Config:
    given: dict[str, Any] = {"input": [corpus(folder)], "order": 3, "held_out": 0.2}
    return perplexity_model.Config(**(given | {"min_documents": 5} | changed))


def test_it_learns_and_says_from_what(tmp_path: Path) -> None:
    config = settings(tmp_path)
    assert list(config.problems()) == []
    numbers = perplexity_model.run(config, Rank(), tmp_path / "out")
    model = load_perplexity(tmp_path / "out/perplexity")
    assert model.score("a quiet evening walk") < model.score("walk quiet a jardin")
    facts = model.facts
    assert facts["trained_on"]["sources"] == {"a": 150, "b": 50}
    assert facts["trained_on"]["quarantined"] == {"not JSON": 1}
    assert numbers["documents"] == 200
    assert numbers["learnt_from"] == facts["trained_on"]["taken"]
    assert 0.7 * 200 < numbers["learnt_from"] < 0.9 * 200
    assert set(facts["quantiles"]) == {"*", "en", "fr"}
    assert facts["quantiles"]["*"]["documents"] == 200 - numbers["learnt_from"]
    assert numbers["median_perplexity"] == facts["quantiles"]["*"]["quantiles"]["0.5"]
    assert facts["quantiles"]["fr"]["thirds"][0] < facts["quantiles"]["en"]["thirds"][0]
    assert model.bucket(1.0, "fr") == "head"
    assert perplexity_model.run(config, replace(Rank(), index=1, world=2), tmp_path / "no") == {}


def test_quantiles_are_of_what_will_be_judged(tmp_path: Path) -> None:
    judged = tmp_path / "crawl.jsonl"
    lines = [{"text": f"buy now {i} cheap", "language": "de"} for i in range(30)]
    judged.write_text("\n".join(json.dumps(line) for line in lines))
    config = settings(tmp_path, judged=[judged])
    perplexity_model.run(config, Rank(), tmp_path / "out")
    facts = load_perplexity(tmp_path / "out/perplexity").facts
    assert facts["quantiles"]["de"]["documents"] == 30
    assert facts["quantiles"]["*"]["documents"] == 30


def test_the_same_for_any_order_and_any_threads(tmp_path: Path) -> None:
    config = settings(tmp_path, threads=1)
    perplexity_model.run(config, Rank(), tmp_path / "one")
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(reversed(path.read_text().split("\n"))))
    again = config.model_copy(update={"threads": 3})
    perplexity_model.run(again, Rank(), tmp_path / "two")
    for name in ("singles.npy", "grams_2.npy", "grams_3.npy", "words.npy"):
        hashes = {tree_hash(tmp_path / job / "perplexity" / name) for job in ("one", "two")}
        assert len(hashes) == 1, name


def test_tokens_instead_of_words(tmp_path: Path) -> None:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts_of("good", 50), vocab_size=300)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = settings(tmp_path, tokenizer=tmp_path / "tokenizer.json")
    perplexity_model.run(config, Rank(), tmp_path / "out")
    (tmp_path / "tokenizer.json").unlink()  # the model has its own
    model = load_perplexity(tmp_path / "out/perplexity")
    assert (model.facts["unit"], model.facts["unknown_words"]) == ("tokens", 1)
    assert model.score("a quiet evening walk") < model.score("klaw gnineve teiuq a")


def test_little_memory_takes_a_sample(tmp_path: Path) -> None:
    config = settings(tmp_path, memory_gb=1e-4)
    numbers = perplexity_model.run(config, Rank(), tmp_path / "out")
    facts = load_perplexity(tmp_path / "out/perplexity").facts
    assert facts["trained_on"]["sampled_share"] < 1
    assert numbers["words"] * 80 <= 1e5


def test_what_cannot_work(tmp_path: Path) -> None:
    good = settings(tmp_path)
    changed = {"input": (), "order": 6, "held_out": 1.0, "min_count": 0, "threads": -1}
    assert list(good.model_copy(update=changed).problems()) == [
        ("input", "found nothing, must name at least one file or folder"),
        ("order", "6 must be from 2 to 5"),
        ("held_out", "1.0 must be from 0 to 0.9"),
        ("min_count", "0 must be positive"),
        ("threads", "-1 is negative; 0 takes all cores"),
    ]


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": ""}\n{"text": "\\n "}\n')
    config = settings(tmp_path, input=[empty], held_out=0)
    with pytest.raises(UserError, match="input: found no word to learn from; give it some text"):
        perplexity_model.run(config, Rank(), tmp_path / "out")
    rare = settings(tmp_path, min_count=10**6)
    with pytest.raises(UserError, match=r"found no word to learn from; .* a lower min_count"):
        perplexity_model.run(rare, Rank(), tmp_path / "out")
