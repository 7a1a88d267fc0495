"""What a model says of tokens, however it is cut over tensor ranks and pipeline stages.

Axis letters: B sequences, S positions, V rows of the output layer, padding among them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel.mappings import gather_from_tensor_model_parallel_region
from torch import Tensor, nn


@torch.no_grad()
def whole_logits(chunks: Sequence[nn.Module], tokens_BS: Tensor) -> Tensor | None:
    """Logits [B, S, V] of every position on the last pipeline stage, None on the others.

    Args:
        chunks: this rank's, as `build_model` makes them; every rank calls with the same tokens.
        tokens_BS: [B, S] int64, whole sequences; the mesh has no context ranks.
    """
    positions_BS = torch.arange(tokens_BS.size(1), device=tokens_BS.device).expand_as(tokens_BS)

    def forward(batches: Iterator[None], chunk: nn.Module) -> tuple[Tensor, Any]:
        return chunk(tokens_BS, positions_BS, None), lambda logits, non_loss_data: logits

    several = len(chunks) > 1
    found: list[Tensor] = get_forward_backward_func()(
        forward_step_func=forward,
        data_iterator=[iter(()) for _ in chunks] if several else iter(()),
        model=list(chunks) if several else chunks[0],
        num_microbatches=parallel_state.get_pipeline_model_parallel_world_size() if several else 1,
        seq_length=tokens_BS.size(1),
        micro_batch_size=tokens_BS.size(0),
        forward_only=True,
        collect_non_loss_data=True,
    )
    if not found:
        return None
    whole: Tensor = gather_from_tensor_model_parallel_region(found[0])
    return whole
