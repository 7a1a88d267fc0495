"""Initial weights that depend on the seed and the model, never on how the model is cut.

Each whole parameter is drawn from a generator seeded by its own name, with the number that its
layer and expert have in the whole model; a rank keeps its cut. So one rank and eight start equal.
"""

import hashlib
import math
import re

import torch
from megatron.core import parallel_state
from megatron.core.transformer.transformer_layer import TransformerLayer
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig

INTO_RESIDUAL = ("linear_proj.weight", "linear_fc2.weight")
"""Matrices that write to the residual stream; each layer adds two of them."""
EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT = "output_layer.weight"


@torch.no_grad()
def initialize(chunk: nn.Module, model: ModelConfig, *, seed: int) -> None:
    """Fill every parameter of a chunk: matrices from a normal, norms as one, biases zero.

    Source: Radford et al. 2019 (GPT-2), section 2.3: residual weights scaled by 1/sqrt(2 layers).
    """
    unit = 0.0 if model.norm_offset else 1.0
    for name, parameter in chunk.named_parameters():
        whole = whole_name(chunk, name)
        if parameter.dim() > 1:
            parameter.copy_(own_cut(drawn(whole, parameter, model, seed), parameter))
        else:
            parameter.fill_(0.0 if name.endswith("bias") else unit)


def drawn(name: str, parameter: nn.Parameter, model: ModelConfig, seed: int) -> Tensor:
    """The whole parameter of which `parameter` is a cut, fp32 on the CPU."""
    if model.tied and name == OUTPUT:
        name = EMBEDDING  # the last stage of a pipeline holds a copy
    digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    scale = math.sqrt(2 * model.layers) if name.endswith(INTO_RESIDUAL) else 1.0
    shape = list(parameter.shape)
    if is_cut(parameter):
        shape[cut_dim(parameter)] *= tensor_place(parameter)[1]
    return torch.empty(shape).normal_(0.0, model.init_std / scale, generator=generator)


def own_cut(whole: Tensor, parameter: nn.Parameter) -> Tensor:
    """This tensor rank's part of `whole`.

    Gate and value rows of a gated block are cut apart (stride 2), so that each rank has both.
    """
    if not is_cut(parameter):
        return whole
    rank, ranks = tensor_place(parameter)
    dim, stride = cut_dim(parameter), parameter.partition_stride  # type: ignore[attr-defined]
    pieces = whole.chunk(stride * ranks, dim)
    return torch.cat(pieces[rank::ranks], dim)


def is_cut(parameter: nn.Parameter) -> bool:
    """Whether tensor ranks hold different parts of this parameter."""
    return bool(getattr(parameter, "tensor_model_parallel", False))


def cut_dim(parameter: nn.Parameter) -> int:
    """The dimension along which tensor ranks cut it."""
    return int(parameter.partition_dim)  # type: ignore[attr-defined]


def tensor_place(parameter: nn.Parameter) -> tuple[int, int]:
    """(rank, ranks) along the tensor axis, which for experts is another one."""
    if getattr(parameter, "allreduce", True):
        rank = parallel_state.get_tensor_model_parallel_rank()
        return rank, parallel_state.get_tensor_model_parallel_world_size()
    rank = parallel_state.get_expert_tensor_parallel_rank()
    return rank, parallel_state.get_expert_tensor_parallel_world_size()


def whole_name(chunk: nn.Module, name: str) -> str:
    """`name` with the numbers that layer and expert have in the whole model, from zero."""
    found = re.match(r"((?:en|de)coder\.layers)(\.\d+)\.(.*)", name)
    if found is None:
        return name
    stack, rest = found[1], found[3]
    layer = chunk.get_submodule(stack + found[2])
    assert isinstance(layer, TransformerLayer), f"{name} is of a {type(layer).__name__}"
    expert = re.search(r"local_experts\.(\d+)\.", rest)
    if expert is not None:
        number = int(expert[1]) + first_expert(layer)
        rest = f"{rest[: expert.start(1)]}{number}{rest[expert.end(1) :]}"
    return f"{stack}.{layer.layer_number - 1}.{rest}"


def first_expert(layer: TransformerLayer) -> int:
    """Number of the first expert that this rank holds."""
    held = len(layer.mlp.experts.local_experts)
    return int(parallel_state.get_expert_model_parallel_rank()) * held
