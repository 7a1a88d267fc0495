"""What some models do beside the embedding and the output layer of megatron-core's."""

from functools import partial
from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.tensor_parallel.layers import set_tensor_model_parallel_attributes
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.model.output import OutputLayer


def finish_ends(chunk: GPTModel, model: ModelConfig) -> None:
    """Let a chunk scale its embedding and bias and cap its logits, where the model asks for it.

    They are of the two layers: whoever calls these, for a loss or to decode, sees the same.
    """
    if chunk.pre_process and model.embedding_scale is not None:
        scale = partial(_scaled, model.embedding_scale)
        chunk.embedding.word_embeddings.register_forward_hook(scale)
    if chunk.post_process:
        chunk.output_layer.__class__ = OutputLayer  # as `GPTModel` built it, with ways of its own
        chunk.output_layer.cap = model.logit_softcap
    if chunk.post_process and model.output_bias:
        add_bias(chunk.output_layer)


def add_bias(layer: Any) -> None:
    """Give the output layer a bias, cut over tensor ranks as its rows are."""
    rows = layer.output_size_per_partition
    bias = nn.Parameter(torch.zeros(rows, dtype=layer.config.params_dtype))
    set_tensor_model_parallel_attributes(bias, is_parallel=True, dim=0, stride=1)
    layer.bias = bias


def _scaled(scale: float, layer: nn.Module, given: Any, vectors: Tensor) -> Tensor:
    """Vectors times the scale, which is rounded to their format first, as in transformers."""
    return vectors * vectors.new_tensor(scale)
