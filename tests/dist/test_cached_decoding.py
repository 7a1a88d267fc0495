"""Decoding with a cache of keys and values says what recomputing everything says."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.sampling import Sampling
from megatron_jobs.infer.generate import continue_prompt
from megatron_jobs.model.build import build_model
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.decode import Decoder
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.batches import SEQ_LEN, VOCAB, global_batch
from tests.plain_models import plain_model
from tests.ranks import on_ranks

LLAMA = ModelConfig(
    layers=2, hidden=64, heads=4, kv_heads=2, ffn=128, vocab_size=VOCAB - 3, seq_len=SEQ_LEN
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
ENDS = (8, 9, 10, 14, 15)
"""The last position of each."""


def read_tokens() -> Tensor:
    """[2, 16], none of them padding of the vocabulary."""
    return global_batch(1, 2)["tokens"][:, :16] % LLAMA.vocab_size


def logits_by_pieces(model: ModelConfig, mesh: Mesh) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits [B, pieces, V] after each piece, read with a cache, and the weights."""
    open_groups(mesh, seed=1)
    (chunk,) = build_model(model, mesh, seed=5)
    decoder = Decoder(chunk, sequences=2, length=16, vocab_size=model.vocab_size)
    pieces = [decoder.add(part) for part in read_tokens().split(PIECES, 1)]
    return torch.stack(pieces, dim=1), {n: p.detach() for n, p in chunk.named_parameters()}


@pytest.mark.parametrize("model", [LLAMA, GPT], ids=["llama", "gpt"])
def test_logits_of_a_decoder_are_those_of_transformers(model: ModelConfig) -> None:
    ((pieces, weights),) = on_ranks(1, lambda rank: logits_by_pieces(model, Mesh()))
    plain = plain_model(model, weights).eval()
    with torch.no_grad():
        expected = plain(read_tokens()).logits[:, ENDS, : model.vocab_size]
    assert_close(pieces, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("ranks", [2, 4])
def test_tensor_ranks_say_what_one_says(ranks: int) -> None:
    """Four share two heads of keys."""
    assert LLAMA.kv_heads == 2

    def decode(rank: Rank) -> Tensor:
        return logits_by_pieces(LLAMA, Mesh(tensor=rank.world))[0]

    (expected,) = on_ranks(1, decode)
    for found in on_ranks(ranks, decode):
        assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padding_of_the_vocabulary_is_never_drawn(temperature: float) -> None:
    """Though its rows, one the opposite of another, have by far the largest logits."""

    def draw(rank: Rank) -> list[int]:
        open_groups(Mesh(), seed=1)
        (chunk,) = build_model(LLAMA, Mesh(), seed=5)
        with torch.no_grad():
            padding = chunk.output_layer.weight[LLAMA.vocab_size :]
            padding.copy_(1000 * torch.randn(len(padding), LLAMA.hidden))
            padding[0] = -padding[1]
        sampling = Sampling(temperature=temperature)
        return continue_prompt(
            chunk, [1, 2], vocab_size=LLAMA.vocab_size, tokens=8, sampling=sampling
        )

    (found,) = on_ranks(1, draw)
    assert len(found) == 8
    assert max(found) < LLAMA.vocab_size


def test_a_decoder_reads_no_more_than_it_has_room_for() -> None:
    def overfill(rank: Rank) -> str:
        open_groups(Mesh(), seed=1)
        (chunk,) = build_model(LLAMA, Mesh(), seed=5)
        decoder = Decoder(chunk, sequences=2, length=15, vocab_size=LLAMA.vocab_size)
        with pytest.raises(AssertionError) as caught:
            decoder.add(read_tokens())
        return str(caught.value)

    assert on_ranks(1, overfill) == ["0 + 16 exceed 15"]
