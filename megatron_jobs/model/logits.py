"""What a model says of tokens, however it is cut over tensor ranks and pipeline stages.

Axis letters: B sequences, S positions, T those of a decoder that reads an encoder, V rows of the
output layer, padding among them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.bert import Encoded


@torch.no_grad()
def whole_logits(chunks: Sequence[nn.Module], tokens_BS: Tensor) -> Tensor | None:
    """Logits [B, S, V] of every position on the last pipeline stage, None on the others.

    Args:
        chunks: this rank's, as `build_model` makes them; every rank calls with the same tokens.
        tokens_BS: [B, S] int64, whole sequences; the mesh has no context ranks.
    """
    positions_BS = torch.arange(tokens_BS.size(1), device=tokens_BS.device).expand_as(tokens_BS)
    logits = at_the_end(chunks, lambda chunk: chunk(tokens_BS, positions_BS, None), tokens_BS)
    if logits is None:
        return None
    whole: Tensor = gather_from_tensor_model_parallel_region(logits)
    return whole


@torch.no_grad()
def at_the_end(
    chunks: Sequence[nn.Module], ask: Callable[[nn.Module], Any], tokens_BS: Tensor
) -> Any:
    """What the last pipeline stage says when each chunk is asked in turn; None on other stages.

    Args:
        ask: calls a chunk, which takes the states of the one before from `set_input_tensor`.
        tokens_BS: [B, S], of the size that goes from stage to stage.
    """

    def forward(batches: Iterator[None], chunk: nn.Module) -> tuple[Any, Any]:
        return ask(chunk), lambda said, non_loss_data: said

    several = len(chunks) > 1
    found: list[Any] = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=[iter(()) for _ in chunks] if several else iter(()),
        model=list(chunks) if several else chunks[0],
        num_microbatches=parallel_state.get_pipeline_model_parallel_world_size() if several else 1,
        seq_length=tokens_BS.size(1),
        micro_batch_size=tokens_BS.size(0),
        forward_only=True,
        collect_non_loss_data=True,
    )
    return found[0] if found else None


def whole_encoded(
    chunks: Sequence[nn.Module],
    tokens_BS: Tensor,
    attends_BS: Tensor | None = None,
    types_BS: Tensor | None = None,
) -> Encoded | None:
    """What an encoder says on the last pipeline stage, logits of all V; None on the others.

    Arguments are those of `BertModel`; every rank calls with the same.
    """

    def ask(chunk: nn.Module) -> Any:
        return chunk(tokens_BS, attends_BS, types_BS, runtime_gather_output=True)

    said: Encoded | None = at_the_end(chunks, ask, tokens_BS)
    return said


def whole_decoder_logits(
    chunks: Sequence[nn.Module],
    tokens_BS: Tensor,
    decoder_tokens_BT: Tensor,
    attends_BS: Tensor | None = None,
) -> Tensor:
    """Logits [B, T, V] of an encoder_decoder. Arguments are those of `T5Model`."""
    (chunk,) = chunks
    with torch.no_grad():
        logits_BTV: Tensor = chunk(
            tokens_BS, decoder_tokens_BT, attends_BS, runtime_gather_output=True
        )
    return logits_BTV


@torch.no_grad()
def answer(chunk: Any, model: ModelConfig, tokens_BS: Tensor) -> Tensor:
    """What a whole model on one rank, of any kind, says of tokens: logits [B, S, V].

    An encoder_decoder reads the same tokens at both ends. Of an encoder without a head for tokens
    it is the states' products with the embedding's vectors.
    """
    if model.kind == "encoder_decoder":
        return whole_decoder_logits([chunk], tokens_BS, tokens_BS)
    if model.kind == "decoder":
        positions_BS = torch.arange(tokens_BS.size(1), device=tokens_BS.device)
        logits_BSV: Tensor = chunk(tokens_BS, positions_BS.expand_as(tokens_BS), None)
        return logits_BSV
    said: Encoded = chunk(tokens_BS)
    if said.logits is not None:
        return said.logits
    vectors_VH: Tensor = chunk.embedding.word_embeddings.weight
    return said.states.transpose(0, 1) @ vectors_VH.t()
