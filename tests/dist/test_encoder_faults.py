"""Faults of converted BERTs, T5s and models with latent attention are named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from megatron_jobs.checkpoint.diagnosis import Models
from megatron_jobs.checkpoint.end_faults import our_ends, their_ends
from megatron_jobs.checkpoint.evidence import our_evidence, their_evidence
from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.prompts import Prompt
from megatron_jobs.checkpoint.proof import Proof, open_theirs, prove_models
from megatron_jobs.checkpoint.state_faults import state_faults
from megatron_jobs.checkpoint.trace import our_layers, their_layers
from megatron_jobs.checkpoint.weight_faults import equal, weight_faults
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests import faults
from tests.encoder_models import BERTS, T5S, bert, question, read_encoder, t5
from tests.family_models import probe_tokens, read_model, saved_model
from tests.ranks import on_ranks

Tensors = Mapping[str, Matrix]
MAKERS: dict[str, Callable[[], Any]] = {
    **{name: lambda name=name: bert(name) for name in BERTS},
    **{f"t5 {version}": lambda version=version: t5(version) for version in T5S},
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_part_of_a_right_one_is_found_and_equal(name: str, tmp_path: Path) -> None:
    MAKERS[name]().save_pretrained(tmp_path)
    tokens = question().tokens

    def work(rank: Rank) -> tuple[list[str], set[str], set[str], set[str]]:
        open_groups(Mesh(), seed=1)
        model, tensors = read_encoder(tmp_path)
        (chunk,) = build_model(model, Mesh(), seed=None)
        fill([chunk], tensors)
        theirs = open_theirs(tmp_path, model)
        said, seen = [], {"q", "k", "mixed", "attention", "mlp_input", "inner", "output"}
        assert list(our_layers(chunk)) == list(their_layers(theirs))
        for layer in our_layers(chunk):
            own = our_evidence(chunk, model, layer, tokens)
            other = their_evidence(theirs, model, layer, tokens)
            said += [*weight_faults(own.weights, other.weights, model)]
            said += [*state_faults(own, other, model)]
            assert set(own.weights) == set(other.weights)
            seen &= set(own.states) & set(other.states)
        ends = our_ends(chunk, model), their_ends(theirs)
        unequal = {n for n in set(ends[0]) & set(ends[1]) if not equal(ends[0][n], ends[1][n])}
        return said, seen, unequal, set(ends[0]) ^ set(ends[1])

    ((said, seen, unequal, alone),) = on_ranks(1, work)
    assert (said, unequal) == ([], set())
    assert seen == {"q", "k", "mixed", "attention", "mlp_input", "inner", "output"}
    assert alone <= {"output", "pooler.dense.weight", "pooler.dense.bias"}  # heads none asks for


def proofs(folder: Path, wrong: Mapping[str, Callable[[Tensors], Tensors]]) -> dict[str, Proof]:
    """What is said of each wrong conversion of the model in `folder`."""

    def work(rank: Rank) -> dict[str, Proof]:
        open_groups(Mesh(), seed=1)
        model, tensors = read_encoder(folder)
        theirs, found = open_theirs(folder, model), {}
        for name, change in wrong.items():
            (chunk,) = build_model(model, Mesh(), seed=None)
            fill([chunk], change(tensors))
            models = Models(lambda: chunk, lambda: theirs, model)  # noqa: B023
            found[name] = prove_models(models, [Prompt("probe", question().tokens)])
        return found

    (found,) = on_ranks(1, work)
    assert isinstance(found, dict)
    return found


def lost(*parts: str) -> dict[str, Callable[[Tensors], Tensors]]:
    return {part: lambda tensors, part=part: faults.lost(tensors, part) for part in parts}


def test_faults_of_bert_are_named(tmp_path: Path) -> None:
    MAKERS["BertForPreTraining"]().save_pretrained(tmp_path)
    words = {
        "layers.2.self_attention.linear_proj.bias":
            "layer 2: the bias of self_attention.linear_proj is lost",
        "embedding.layer_norm.bias": "the bias of embedding.layer_norm is lost",
        "lm_head.dense.weight": "lm_head.dense is lost: its weights are zero",
        "pooler.dense.bias": "the bias of pooler.dense is lost",
        "binary_head.weight": "binary_head is lost: its weights are zero",
        "output_layer.bias": "output layer: its bias is lost",
    }  # fmt: skip
    found = proofs(tmp_path, lost(*words))
    assert {part: proof.faults[1:] for part, proof in found.items()} == {
        part: (sentence,) for part, sentence in words.items()
    }
    assert found["pooler.dense.bias"].numbers()["max_logit_difference"] < 1e-4


def test_faults_of_t5_are_named(tmp_path: Path) -> None:
    MAKERS["t5 1.1"]().save_pretrained(tmp_path)
    words = {
        "encoder.layers.1.mlp.linear_fc2":
            "encoder layer 1: mlp.linear_fc2 is lost: its weights are zero",
        "decoder.layers.1.cross_attention.linear_q":
            "layer 1: cross_attention.q is lost: its weights are zero",
        "decoder.final_layernorm":
            "decoder.final_layernorm is lost: its weights are zero",
    }  # fmt: skip
    found = proofs(tmp_path, lost(*words))
    assert {part: proof.faults[1:] for part, proof in found.items()} == {
        part: (sentence,) for part, sentence in words.items()
    }


def latent_faults(folder: Path, tensors: Callable[[Tensors], Tensors]) -> Proof:
    """What is said of a DeepSeek-V2 converted wrongly."""
    plain = saved_model("deepseek_v2", folder)

    def work(rank: Rank) -> Proof:
        open_groups(Mesh(), seed=1)
        model, ours = read_model("deepseek_v2", folder)
        (chunk,) = build_model(model, Mesh(), seed=None)
        fill([chunk], tensors(ours))
        models = Models(lambda: chunk, lambda: plain, model)
        return prove_models(models, [Prompt("probe", probe_tokens())])

    (found,) = on_ranks(1, work)
    assert isinstance(found, Proof)
    return found


def test_the_rotary_convention_of_latent_attention_is_named(tmp_path: Path) -> None:
    def halves(ours: Tensors) -> Tensors:
        """Rows of rotary columns as another kind of model keeps them."""
        model, _ = read_model("deepseek_v2", tmp_path)
        assert model.latent is not None
        nope, rope, found = model.latent.nope_dim, model.latent.rope_dim, dict(ours)
        for name in ours:
            first = {"linear_q_up_proj": nope, "linear_kv_down_proj": model.latent.kv_rank}
            start = next((first[part] for part in first if part in name), None)
            if start is None:
                continue
            array = ours[name].array()
            heads = array.reshape(-1, start + rope, array.shape[-1]).copy()
            turned = heads[:, start:].reshape(len(heads), rope // 2, 2, -1)
            heads[:, start:] = turned.transpose(0, 2, 1, 3).reshape(len(heads), rope, -1)
            found[name] = Stored(heads.reshape(array.shape))
        return found

    proof = latent_faults(tmp_path, halves)
    rule = "rotary columns are in the convention of halves, theirs in that of interleaved pairs"
    assert proof.faults[1:] == tuple(
        f"layer 0: self_attention.{name}: {rule} (neighbouring columns)"
        for name in ("linear_kv_down_proj", "linear_q_up_proj")
    )


def test_an_expert_that_no_token_visits_is_asked_too(tmp_path: Path) -> None:
    """Its loss changes no logit."""
    plain = saved_model("mixtral", tmp_path)

    def work(rank: Rank) -> Proof:
        open_groups(Mesh(), seed=1)
        model, ours = read_model("mixtral", tmp_path)
        lost = faults.lost(ours, "layers.1.mlp.experts.local_experts.3")
        (chunk,) = build_model(model, Mesh(), seed=None)
        fill([chunk], lost)
        prompt = Prompt("probe", fewest(plain))
        proof = prove_models(Models(lambda: chunk, lambda: plain, model), [prompt])
        assert proof.numbers()["max_logit_difference"] < 1e-4
        return proof

    (proof,) = on_ranks(1, work)
    assert proof.faults == (
        "layer 1: experts 3 answer otherwise than theirs",
        "layer 1: expert 3 is lost: its weights are zero",
    )


@torch.no_grad()
def fewest(plain: Any) -> torch.Tensor:
    """A token after which expert 3 of layer 1 is not visited."""
    for token in range(300):
        chosen: list[torch.Tensor] = []
        hook = plain.model.layers[1].mlp.gate.register_forward_hook(
            lambda *called: chosen.append(called[2][2])  # noqa: B023
        )
        plain(torch.tensor([[token]]))
        hook.remove()
        if not bool((chosen[0] == 3).any()):
            return torch.tensor([[token]])
    raise AssertionError("every token visits the expert")
