"""A plan whose trainings go on from each other: what does not fit is said before it starts."""

from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.config.settings import all_problems
from megatron_jobs.convert.proof_memory import proof_bytes
from megatron_jobs.runtime.files import write_json
from megatron_jobs.stages.pretrain import Config, foresee, promise
from tests.unit.data.test_start import MODEL, follows, note

INDEX = {"vocab_size": 1000, "seq_len": 64, "train_samples": 800, "earlier_samples": 0}
"""What the maker of an index promises."""
BEFORE = {"vocab_size": 1000, "seq_len": 64, "steps": 100, "global_size": 8, "index_samples": 800}
"""And a training of 100 steps."""
SETTINGS: dict[str, Any] = {
    "index": "/run/mix/index",
    "model": MODEL,
    "batch": {"global_size": 8},
    "steps": 100,
}
LATER = SETTINGS | {"load": "/run/first/checkpoints", "steps": 150}
NEXT = INDEX | {"earlier_samples": 800, "train_samples": 400}


def foreseen(settings: dict[str, Any], **inputs: dict[str, Any]) -> list[tuple[str, str]]:
    return list(foresee(Config(**settings), inputs))


def test_what_fits_has_no_problems() -> None:
    assert foreseen(SETTINGS, index=INDEX) == []
    assert foreseen(LATER, index=NEXT, load=BEFORE) == []
    assert foreseen(LATER | {"finetune": True, "steps": 50}, index=INDEX, load=BEFORE) == []


@pytest.mark.parametrize(
    ("settings", "index", "before", "wanted"),
    [
        (
            SETTINGS, INDEX | {"vocab_size": 1001}, None,
            ("model.vocab_size", "1000 is below the tokenizer's 1001"),
        ),
        (
            SETTINGS, INDEX | {"seq_len": 128}, None,
            ("model.seq_len", "64 is below the index's seq_len 128"),
        ),
        (
            SETTINGS | {"steps": 101}, INDEX, None,
            ("steps", "101 x batch.global_size 8 = 808 samples; the index is to hold 800: give it "
             "train_samples: 808"),
        ),
        (
            LATER | {"steps": 151}, NEXT, BEFORE,
            ("steps", "(151 - 100) x batch.global_size 8 = 408 samples; the index is to hold 400: "
             "give it train_samples: 408"),
        ),
        (
            SETTINGS, INDEX | {"earlier_samples": 80}, None,
            ("index", "it goes on behind 80 samples of an earlier one, this run behind 0; "
             "name the run's checkpoint in `load`, or build it without earlier"),
        ),
        (
            LATER, NEXT, BEFORE | {"vocab_size": 900},
            ("model.vocab_size", "1000 is not that of `load`, 900"),
        ),
        (
            LATER | {"steps": 100}, NEXT, BEFORE,
            ("steps", "100 is not beyond step 100, of `load`"),
        ),
        (
            LATER | {"batch": {"global_size": 4}}, NEXT, BEFORE,
            ("batch.global_size", "4 is not that of `load`, 8"),
        ),
        (
            LATER, NEXT | {"earlier_samples": 640}, BEFORE,
            ("index", "goes on behind 640 samples of the index before, `load` will have taken 800; "
             "build it with earlier_samples: 800"),
        ),
        (
            LATER | {"load": "/run/first/checkpoints/step-00000060", "steps": 110}, NEXT, BEFORE,
            ("index", "goes on behind 800 samples of the index before, `load` will have taken 480; "
             "build it with earlier_samples: 480"),
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    settings: dict[str, Any],
    index: dict[str, Any],
    before: dict[str, Any] | None,
    wanted: tuple[str, str],
) -> None:
    inputs = {"index": index} | ({"load": before} if before else {})
    assert foreseen(settings, **inputs) == [wanted]


def test_samples_that_will_have_been_taken_are_promised() -> None:
    """A third training in the plan can be told what its index has to follow."""
    config = Config(**SETTINGS)
    sizes = {"parameters": config.model.parameters(), "proof_bytes": proof_bytes(config.model)}
    assert promise(config, {"index": INDEX}) == BEFORE | sizes
    later = promise(Config(**LATER), {"index": NEXT, "load": BEFORE})
    assert later["index_samples"] == 50 * 8
    finetune = Config(**LATER | {"finetune": True})
    assert promise(finetune, {"index": INDEX, "load": BEFORE})["index_samples"] == 150 * 8
    assert promise(Config(**LATER), {"index": NEXT})["index_samples"] is None


def test_weights_of_nowhere_are_refused() -> None:
    assert list(all_problems(Config(**SETTINGS | {"finetune": True}))) == [
        ("finetune", "has no weights to begin with; name a checkpoint in `load`")
    ]


def write_index(folder: Path, **changes: Any) -> Path:
    more = {"version": 2, "tokenizer_hash": "t1", "seq_len": 64} | changes
    write_json(folder / "index.json", follows({"sources": [], "splits": {}}, 800) | more)
    return folder


def test_a_checkpoint_that_is_there_is_looked_at(tmp_path: Path) -> None:
    index, load = write_index(tmp_path / "index"), tmp_path / "checkpoints/step-00000100"
    settings = LATER | {"index": index, "load": load}
    assert foreseen(settings) == []
    load.mkdir(parents=True)
    assert foreseen(settings) == [("load", f"{load}: holds no whole checkpoint")]
    write_json(load / "manifest.json", {"step": 100, "record": note(tokenizer_hash="t2")})
    assert foreseen(settings) == [
        ("load", f"{load} was trained on tokens of another tokenizer than this index holds; "
         "tokenize with its one")
    ]  # fmt: skip
    write_json(load / "manifest.json", {"step": 100, "record": note()})
    assert foreseen(settings) == []
    write_json(load / "manifest.json", {"step": 90, "record": note()})
    assert [name for name, _ in foreseen(settings)] == ["index"]


def test_an_index_that_is_there_is_looked_at(tmp_path: Path) -> None:
    index = write_index(tmp_path / "index")
    assert foreseen(SETTINGS | {"index": index}) == [
        ("index", "it goes on behind 800 samples of an earlier one, this run behind 0; "
         "name the run's checkpoint in `load`, or build it without earlier")
    ]  # fmt: skip
