"""Where a training begins that goes on from a checkpoint, and each reason why it cannot."""

from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.data.sample_index import index_identity
from megatron_jobs.data.start import (
    Start,
    check_fresh_start,
    index_note,
    noted_step,
    start_of,
    start_problems,
)
from megatron_jobs.errors import UserError
from megatron_jobs.runtime.saved_steps import SavedStep

MODEL = {"layers": 2, "hidden": 64, "heads": 4, "vocab_size": 1000, "seq_len": 64}
WHERE = "/run/first/checkpoints/step-00000100"


def facts(name: str, earlier: dict[str, Any] | None = None) -> dict[str, Any]:
    """Of an index.json, as far as it is looked at."""
    source = {"bin_hash": name, "idx_hash": name}
    return {"sources": [source], "splits": {"train": {}}, "earlier": earlier}


OWN = facts("own")
"""The index that the checkpoint was trained on, from its step 40 on: 60 steps of 8 samples."""


def saved(**changes: Any) -> SavedStep:
    record = note() | {"index": index_note(OWN, 40)} | changes
    return SavedStep(
        Path(WHERE), 100, {name: value for name, value in record.items() if value is not None}
    )


def note(**changes: Any) -> dict[str, Any]:
    """What the training that goes on will note."""
    return {
        "model": MODEL,
        "precision": "bf16",
        "tokenizer_hash": "t1",
        "samples_per_step": 8,
        "seq_len": 64,
    } | changes


def follows(index: dict[str, Any], samples: int, **changes: Any) -> dict[str, Any]:
    earlier = {"index": "..", "identity": index_identity(index), "samples": samples}
    return facts("next", earlier | changes)


@pytest.mark.parametrize(
    ("index", "finetune", "wanted"),
    [
        (OWN, False, Start(100, 40)),
        (follows(OWN, 480), False, Start(100, 100)),
        (OWN, True, Start(0, 0)),
        (follows(OWN, 480), True, Start(0, 0)),
    ],
)
def test_where_it_begins(index: dict[str, Any], finetune: bool, wanted: Start) -> None:
    assert start_of(saved(), index, finetune=finetune) == wanted
    assert problems(index=index, finetune=finetune) == []


def test_an_index_that_follows_another_is_gone_on_with_itself() -> None:
    """Its own checkpoints are of it, not of the one before it."""
    index = follows(OWN, 480)
    later = saved(index=index_note(index, 100))
    assert start_of(later, index, finetune=False) == Start(100, 100)
    assert noted_step(later.record) == 100
    assert noted_step({}) == 0


def problems(
    before: SavedStep | None = None, *, index: dict[str, Any] = OWN, **given: Any
) -> list[tuple[str, str]]:
    steps, finetune = given.pop("steps", 200), given.pop("finetune", False)
    told = note(**given)
    return list(start_problems(before or saved(), told, index, steps=steps, finetune=finetune))


@pytest.mark.parametrize(
    ("before", "given", "wanted"),
    [
        (
            {"tokenizer_hash": "t2"}, {},
            ("load", f"{WHERE} was trained on tokens of another tokenizer than this index holds; "
             "tokenize with its one"),
        ),
        (
            {"samples_per_step": None}, {},
            ("load", f"{WHERE} holds weights alone; finetune: true begins with them"),
        ),
        (
            {}, {"samples_per_step": 16},
            ("batch.global_size", f"16, but {WHERE} was trained with 8"),
        ),
        ({}, {"seq_len": 32}, ("index", f"seq_len 32, but {WHERE} was trained with 64")),
        ({}, {"precision": "fp32"}, ("precision", f"fp32, but {WHERE} was trained with bf16")),
        ({}, {"steps": 100}, ("steps", f"100 is not beyond step 100, of {WHERE}")),
        (
            {}, {"model": MODEL | {"layers": 3}},
            ("model.layers", f"3, but {WHERE} has 2"),
        ),
        (
            {}, {"model": MODEL | {"ffn": 100}},
            ("model.ffn", f"100, but {WHERE} has 256"),
        ),
        (
            {}, {"model": MODEL | {"rope_base": 500_000}},
            ("model.rope_base", f"500000, but {WHERE} has 10000"),
        ),
        (
            {}, {"index": facts("other")},
            ("index", f"begins at its first sample, but {WHERE} has taken 480 of another index; "
             "build it with that one as `earlier` and earlier_samples: 480, or begin anew with "
             "finetune: true"),
        ),
        (
            {}, {"index": follows(facts("other"), 480)},
            ("index", f"does not follow the index that {WHERE} was trained on; "
             "build it with that one as `earlier` and earlier_samples: 480"),
        ),
        (
            {}, {"index": follows(OWN, 800)},
            ("index", f"goes on behind 800 samples of its earlier one, but {WHERE} has taken 480; "
             "build it with that one as `earlier` and earlier_samples: 480"),
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(
    before: dict[str, Any], given: dict[str, Any], wanted: tuple[str, str]
) -> None:
    assert problems(saved(**before), **given) == [wanted]


def test_all_that_does_not_fit_is_said_at_once() -> None:
    found = problems(
        saved(tokenizer_hash="t2"), index=facts("other"), steps=7,
        model=MODEL | {"heads": 2}, precision="fp32",
    )  # fmt: skip
    names = [name for name, _ in found]
    assert names == [
        "load",
        "model.heads",
        "model.kv_heads",
        "model.head_dim",
        "precision",
        "steps",
        "index",
    ]


def test_weights_alone_ask_for_the_same_model_only() -> None:
    given = {"finetune": True, "steps": 7, "precision": "fp32", "samples_per_step": 99}
    assert problems(saved(), index=facts("other"), **given) == []
    assert problems(saved(samples_per_step=None), **given) == []
    assert problems(saved(), model=MODEL | {"rope_base": 500_000, "seq_len": 128}, **given) == []
    learned = MODEL | {"position": "learned"}
    longer = learned | {"seq_len": 128}
    assert problems(saved(model=learned), model=longer, **given) == [
        ("model.seq_len", f"128, but {WHERE} has 64")
    ]
    narrow = MODEL | {"hidden": 32}
    assert ("model.hidden", f"32, but {WHERE} has 64") in problems(saved(), model=narrow, **given)


def test_what_nobody_noted_is_not_held_against_it() -> None:
    """Checkpoints from before indices were noted, and models of unknown tokenizers."""
    old = saved(index=None, tokenizer_hash=None)
    assert problems(old, index=facts("other")) == []
    assert start_of(old, facts("other"), finetune=False) == Start(100, 0)
    assert problems(old, index=follows(facts("other"), 800)) == []


def test_a_fresh_training_needs_an_index_that_begins() -> None:
    check_fresh_start(facts("own"))
    wanted = (
        "index: it goes on behind 9 samples of an earlier one, this run behind 0; "
        "name the run's checkpoint in `load`, or build it without earlier"
    )
    with pytest.raises(UserError, match=wanted):
        check_fresh_start(facts("own", {"samples": 9}))
