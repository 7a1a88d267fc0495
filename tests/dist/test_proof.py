"""Conversions that are wrong are refused, and what is wrong is named; right ones are let be."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_jobs.checkpoint.diagnosis import Models
from megatron_jobs.checkpoint.evidence import our_evidence, their_evidence
from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.prompts import Prompt
from megatron_jobs.checkpoint.proof import Proof, prove_models
from megatron_jobs.checkpoint.state_faults import WAY, state_faults
from megatron_jobs.checkpoint.weight_faults import weight_faults
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.family import Family, to_ours, to_theirs
from megatron_jobs.convert.forms import FUSED_QKV, PLAIN, QKV, Form
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.errors import DataError
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests import faults
from tests.family_models import (
    CASES,
    family_of,
    probe_tokens,
    read_model,
    read_tensors,
    saved_model,
)
from tests.ranks import on_ranks

Tensors = Mapping[str, Matrix]
QUERIES = "self_attention.linear_qkv."


@dataclass(frozen=True)
class Fault:
    """A conversion that is wrong, and what the proof must say of it."""

    words: tuple[str, ...]
    part: str = ""
    """Of the names of rows of the table that `row` changes."""
    row: faults.Change | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: Callable[[Tensors], Tensors] = dict


def rows(part: str, change: faults.Rows, *words: str) -> Fault:
    return Fault(words, part, faults.reordered(change))


def wrong(words: str, **settings: Any) -> Fault:
    return Fault((words,), settings=settings)


PAIRS = "interleaved pairs (neighbouring columns)"
LLAMA = {
    "convention": rows(
        QUERIES, faults.pairs_of_halves,
        f"layer 0: q and k have the rotary convention of {PAIRS}, "
        "the model turns halves: rows must be permuted",
    ),
    "convention twice": rows(
        QUERIES, faults.halves_of_pairs,
        f"layer 0: q and k have been permuted from {PAIRS} to halves, "
        "which they were already: rows must stay",
    ),
    "gate and up": Fault(("layer 0: gate and up are swapped",), "linear_fc1", faults.swapped(0, 1)),
    "gate and up in turn": rows(
        "linear_fc1", faults.interleaved,
        "layer 0: rows of gate and up are mixed: row 1 of our gate is row 0 of their up",
    ),
    "query heads": rows(
        QUERIES, faults.heads_of_queries(0, 2, 1, 3),
        "layer 0: heads of q are in another order: ours 0 1 2 3 are theirs 0 2 1 3",
    ),
    "key heads": rows(
        QUERIES, faults.heads_of_keys(1, 0),
        "layer 0: heads of k are in another order: ours 0 1 are theirs 1 0",
    ),
    "keys and values": Fault(("layer 0: k and v are swapped",), QUERIES, faults.swapped(1, 2)),
    "not by group": Fault(
        ("layer 0: q, k and v are read as if they lay by group, they lie one after the other",),
        QUERIES, faults.with_form(Form(shares=QKV.shares)),
    ),
    "rows of tokens": rows(
        "word_embeddings", faults.shifted,
        "embedding: rows are shifted by -1: row 1 of ours is row 0 of theirs",
    ),
    "norms": Fault(
        ("layer 0: input_layernorm holds the weights of their pre_mlp_layernorm",
         "layer 0: pre_mlp_layernorm holds the weights of their input_layernorm"),
        tensors=lambda t: {n: t[exchanged(n)] for n in t},
    ),
    "output layer lost": Fault(
        ("output layer: 300 of 300 rows are none of theirs, the first is 0",),
        tensors=lambda t: faults.lost(t, "output_layer"),
    ),
    "a matrix lost": Fault(
        ("layer 2: mlp.linear_fc2 is lost: its weights are zero",),
        tensors=lambda t: faults.lost(t, "layers.2.mlp.linear_fc2"),
    ),
    "base": wrong("layer 0: rotary base differs: ours 5e+05, theirs 1e+04", rope_base=500000),
    "pairs": wrong(
        f"layer 0: the model turns {PAIRS}, theirs halves: set rope_interleaved: false",
        rope_interleaved=True,
    ),
    "share": wrong(
        "layer 0: angles turn 4 columns of a head, theirs 8: rope_share", rope_share=0.5
    ),
    "stretch": wrong(
        "layer 0: rotary angles are stretched otherwise: pair 0 turns by 0.5, theirs by 1: "
        "rope_scaling",
        rope_scaling={"kind": "linear", "factor": 2.0},
    ),
    "scale": wrong(
        "layer 0: the attention scale differs: ours 0.5, theirs 0.353553", attention_scale=0.5
    ),
    "window": wrong(
        "layer 0: attention is right up to token 7 and wrong from 8 on: window", window=8
    ),
    "offset": wrong(
        "layer 0: input_layernorm: ours multiplies by 1 + weight, theirs by weight: "
        "set norm_offset: false",
        norm_offset=True,
    ),
    "epsilon": wrong(
        "layer 0: input_layernorm: each token is scaled otherwise: norm_eps, "
        "or where the norm stands",
        norm_eps=0.1,
    ),
    "activation": wrong("layer 0: the activation differs: ours is geglu", activation="geglu"),
    "parallel": wrong("layer 0: pre_mlp_layernorm is of another kind, or of another input: norm, "
                      "norm_place", parallel_residual=True),
    "tied": wrong(
        "output layer: ours is the embedding, theirs has its own weights: set tied: false",
        tied=True,
    ),
    "logits": wrong(
        "output layer: its weights are theirs, its logits are not: logit_softcap, logit scale",
        logit_softcap=1.0,
    ),
    "embedding scale": wrong(
        "embedding: theirs is 0.5 times ours: embedding_scale", embedding_scale=2.0
    ),
}  # fmt: skip
BIASES_LOST = tuple(f"layer 0: the bias of {name} is lost" for name in "kqv")
OTHERS = {
    "qwen2": {
        "biases": Fault(BIASES_LOST, tensors=lambda t: faults.lost(t, QUERIES + "bias")),
        "convention": LLAMA["convention"],
    },
    "gpt2": {
        "turned": Fault(
            ("layer 0: self_attention.linear_proj is transposed",),
            "linear_proj.weight", faults.with_form(PLAIN),
        ),
        "by head": Fault(
            ("layer 0: q, k and v are read as if they lay by head, they lie one after the other",),
            QUERIES + "weight", faults.with_form(Form(faults.read_by_head, turned=True)),
        ),
        "positions": rows(
            "position_embeddings", faults.shifted,
            "position embedding: rows are shifted by -1: row 1 of ours is row 0 of theirs",
        ),
        "bias": Fault(
            ("layer 3: the bias of mlp.linear_fc2 is lost",),
            tensors=lambda t: faults.lost(t, "layers.3.mlp.linear_fc2.bias"),
        ),
    },
    "gpt_neox": {
        "one after the other": Fault(
            ("layer 0: q, k and v are read as if they lay one after the other, they lie by head",),
            QUERIES, faults.with_form(FUSED_QKV),
        ),
    },
    "gemma2": {
        "no offset": wrong(
            "layer 0: input_layernorm: theirs multiplies by 1 + weight, ours by weight: "
            "set norm_offset: true",
            norm_offset=False,
        ),
    },
    "mixtral": {
        "lost to another": Fault(
            ("layer 1: expert 3 is lost: its weights are those of expert 2",),
            tensors=lambda t: faults.in_another_order(t, 0, 1, 2, 2),
        ),
        "lost": Fault(
            ("layer 1: expert 3 is lost: its weights are zero",),
            tensors=lambda t: faults.lost(t, "layers.1.mlp.experts.local_experts.3"),
        ),
        "order": Fault(
            ("layer 1: experts are in another order: ours 0 1 2 3 are theirs 0 2 1 3",),
            tensors=lambda t: faults.in_another_order(t, 0, 2, 1, 3),
        ),
        "gate and up": Fault(
            ("layer 0: gate and up are swapped in all experts",), "linear_fc1",
            faults.swapped(0, 1),
        ),
        "rules": wrong(
            "layer 0: experts and router are theirs, what comes out is not: its rules do "
            "(score, normalize, scale, groups, experts_per_token)",
            experts_per_token=1,
        ),
    },
}  # fmt: skip
ALL = {"llama": LLAMA, **OTHERS}


def exchanged(name: str) -> str:
    """The other norm of a layer."""
    names = {"input_layernorm": "pre_mlp_layernorm", "pre_mlp_layernorm": "input_layernorm"}
    return re.sub("|".join(names), lambda found: names[found[0]], name)


def family_with(fault: Fault, name: str) -> Family:
    family = family_of(name)
    return family if fault.row is None else faults.faulty(family, fault.part, fault.row)


def proof_of(name: str, folder: Path, plain: Any, fault: Fault) -> Proof:
    """What is said of a model converted wrongly."""
    right, _ = read_model(name, folder)
    model = ModelConfig(**{**right.model_dump(), **fault.settings})
    ours = to_ours(read_tensors(folder), family_with(fault, name), right)
    (chunk,) = build_model(model, Mesh(), seed=None)
    fill([chunk], fault.tensors(ours))
    prompts = [Prompt("probe", probe_tokens()), Prompt("short", probe_tokens(3))]
    return prove_models(Models(lambda: chunk, lambda: plain, model), prompts)


@pytest.mark.parametrize("name", ALL)
def test_each_fault_is_named(name: str, tmp_path: Path) -> None:
    plain = saved_model(name, tmp_path)

    def work(rank: Rank) -> dict[str, Proof]:
        open_groups(Mesh(), 0)
        return {case: proof_of(name, tmp_path, plain, fault) for case, fault in ALL[name].items()}

    (found,) = on_ranks(1, work)
    said = {case: proof.faults[1:] for case, proof in found.items()}
    assert said == {case: fault.words for case, fault in ALL[name].items()}
    for case, proof in found.items():
        place = re.sub(r"\d[\de.+-]*", "#", proof.faults[0])
        assert place in FIRSTS, f"{case}: {proof.faults[0]}"
        with pytest.raises(DataError, match=r"x: logits differ by .*the two models are not"):
            proof.check(Path("x"))


FIRSTS = {
    "embedding: hidden states differ by #",
    "layer #: hidden states differ by # (those of embedding by #)",
    "layer #: hidden states differ by # (those of layer # by #)",
    "layer #: experts # answer otherwise than theirs",
    "layer #: experts # # answer otherwise than theirs",
    "layer #: experts # # # # answer otherwise than theirs",
    "no layer differs, only the logits do",
}


@pytest.mark.parametrize("name", ALL)
def test_what_a_wrong_table_writes_is_bit_equal_after_the_way_back(
    name: str, tmp_path: Path
) -> None:
    """A round trip proves no table: each of these is wrong both ways, and comes back whole."""
    saved_model(name, tmp_path)
    theirs = read_tensors(tmp_path)
    model, _ = read_model(name, tmp_path)
    tables = [f for f in ALL[name].values() if f.row is not None and f.part != "word_embeddings"]
    for fault in tables:
        family = family_with(fault, name)
        again = to_theirs(to_ours(theirs, family, model), family, model)
        for tensor, matrix in again.items():
            np.testing.assert_array_equal(matrix.array(), theirs[tensor].array())


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_said_of_a_right_conversion(name: str, tmp_path: Path) -> None:
    """Of no layer, looked at one by one: each part of theirs is found, and is that of ours."""
    plain = saved_model(name, tmp_path)

    def work(rank: Rank) -> tuple[Proof, list[str], set[str]]:
        open_groups(Mesh(), 0)
        model, tensors = read_model(name, tmp_path)
        (chunk,) = build_model(model, Mesh(), seed=None)
        fill([chunk], tensors)
        models = Models(lambda: chunk, lambda: plain, model)
        proof = prove_models(models, [Prompt("probe", probe_tokens())])
        said, seen = [], set(WAY)
        for layer in range(model.layers):
            own = our_evidence(chunk, model, f"layer {layer}", probe_tokens())
            other = their_evidence(plain, model, f"layer {layer}", probe_tokens())
            said += [*weight_faults(own.weights, other.weights, model)]
            said += [*state_faults(own, other, model)]
            assert set(own.weights) == set(other.weights)
            seen &= set(own.states) & set(other.states)
        return proof, said, seen

    ((proof, said, seen),) = on_ranks(1, work)
    assert (proof.faults, said) == ((), [])
    assert proof.answers[0].max_logit_difference < 1e-4
    expected = {"normed", "q_turned", "k_turned", "mixed", "attention", "mlp_input", "output"}
    assert expected <= seen
