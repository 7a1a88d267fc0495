"""Decoding with megatron-core's cache of keys and values says what recomputing everything says."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.model.build import build_model
from megatron_jobs.model.config import ModelConfig
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.batches import SEQ_LEN, VOCAB, global_batch
from tests.plain_models import plain_model
from tests.ranks import on_ranks

LLAMA = ModelConfig(
    layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab_size=VOCAB, seq_len=SEQ_LEN
)
GPT = LLAMA.model_copy(
    update={
        "kv_heads": None,
        "position": "learned",
        "norm": "layernorm",
        "activation": "gelu_tanh",
        "bias": True,
        "tied": True,
    }
)
PIECES = (9, 1, 1, 4, 1)
"""Positions computed at a time: a prompt, then single tokens and a short run."""


def logits_by_pieces(model: ModelConfig, mesh: Mesh) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits [B, S, V] computed at once and piece by piece with a cache, and the weights."""
    from megatron.core.inference.contexts import StaticInferenceContext

    open_groups(mesh, seed=1)
    (chunk,) = build_model(model, mesh, seed=5)
    chunk.eval()
    batch = global_batch(1, 2)
    tokens, positions = batch["tokens"][:, :16], batch["positions"][:, :16]
    context = StaticInferenceContext(max_batch_size=2, max_sequence_length=SEQ_LEN)
    pieces = []
    with torch.no_grad():
        whole = chunk(tokens, positions, None, runtime_gather_output=True)
        for part, place in zip(tokens.split(PIECES, 1), positions.split(PIECES, 1), strict=True):
            pieces.append(
                chunk(part, place, None, inference_context=context, runtime_gather_output=True)
            )
            context.increment_sequence_len_offset(part.size(1))
    return whole, torch.cat(pieces, dim=1), {n: p.detach() for n, p in chunk.named_parameters()}


@pytest.mark.parametrize("model", [LLAMA, GPT], ids=["llama", "gpt"])
def test_logits_with_a_cache_and_without_are_those_of_transformers(model: ModelConfig) -> None:
    ((whole, pieces, weights),) = on_ranks(1, lambda rank: logits_by_pieces(model, Mesh()))
    plain = plain_model(model, weights).eval()
    with torch.no_grad():
        expected = plain(global_batch(1, 2)["tokens"][:, :16]).logits
    assert_close(whole, expected, rtol=0, atol=1e-5)
    assert_close(pieces, expected, rtol=0, atol=1e-5)


def test_two_tensor_ranks_say_what_one_says() -> None:
    def decode(rank: Rank) -> Tensor:
        return logits_by_pieces(LLAMA, Mesh(tensor=rank.world))[1]

    (expected,) = on_ranks(1, decode)
    for found in on_ranks(2, decode):
        assert_close(found, expected, rtol=0, atol=1e-5)
