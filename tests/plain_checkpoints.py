"""Checkpoints that megatron-core and torch write by themselves, with no code of the package."""

import re
import zlib
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from megatron_jobs.parallel.device import install
from megatron_jobs.runtime.rank import Rank
from tests.ranks import on_ranks

VOCAB, ROWS, SEQ_LEN = 310, 320, 16
SIZES = {
    "num_layers": 4, "hidden_size": 32, "num_attention_heads": 4, "num_query_groups": 2,
    "kv_channels": 8, "ffn_hidden_size": 48, "add_bias_linear": False, "layernorm_epsilon": 1e-6,
}  # fmt: skip
ARGS = SIZES | {
    "group_query_attention": True, "swiglu": True, "qk_layernorm": True, "normalization": "RMSNorm",
    "position_embedding_type": "rope", "rotary_base": 10000, "rotary_percent": 1.0,
    "max_position_embeddings": SEQ_LEN, "seq_length": SEQ_LEN, "norm_epsilon": 1e-6,
    "untie_embeddings_and_output_weights": True, "vocab_size": VOCAB, "padded_vocab_size": ROWS,
    "make_vocab_size_divisible_by": 32, "tensor_model_parallel_size": 2,
    "pipeline_model_parallel_size": 2, "expert_model_parallel_size": 1,
    "params_dtype": torch.float32, "save": Path("/somewhere/else"), "num_experts": None,
}  # fmt: skip
"""What Megatron-LM would save of its arguments."""
Share = tuple[Tensor, int | None]
"""A rank's part of a tensor, and the axis that it is cut over, if any."""


def save_plain(root: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write ROOT/dense and ROOT/legacy on TP2 x PP2, ROOT/experts on PP2 x EP2; their tensors."""
    install()
    for name in ("dense", "experts"):
        (root / name).mkdir(parents=True)
    ranks = on_ranks(4, lambda rank: (_save_dense(rank, root), _save_experts(rank, root)))
    return whole(dense for dense, _ in ranks), whole(experts for _, experts in ranks)


def _save_dense(rank: Rank, root: Path) -> dict[str, Share]:
    from megatron.core import parallel_state
    from megatron.core.transformer.enums import AttnBackend

    parallel_state.initialize_model_parallel(2, 2)
    model = _model(qk_layernorm=True)
    args = Namespace(**ARGS, rank=0, attention_backend=AttnBackend.auto)
    common = {"args": args, "checkpoint_version": 3.0, "iteration": 10}
    _save(model, root / "dense", common)
    tensor, stage = (
        parallel_state.get_tensor_model_parallel_rank(),
        parallel_state.get_pipeline_model_parallel_rank(),
    )
    folder = root / "legacy" / "iter_0000010" / f"mp_rank_{tensor:02d}_{stage:03d}"
    folder.mkdir(parents=True)
    torch.save({"model": model.state_dict(), **common}, folder / "model_optim_rng.pt")
    if rank.index == 0:
        (root / "legacy" / "latest_checkpointed_iteration.txt").write_text("10")
    return _shares(model)


def _save_experts(rank: Rank, root: Path) -> dict[str, Share]:
    from megatron.core import parallel_state

    parallel_state.destroy_model_parallel()
    parallel_state.initialize_model_parallel(1, 2, expert_model_parallel_size=2)
    model = _model(
        num_moe_experts=4, moe_router_topk=2, moe_ffn_hidden_size=24, bf16=True,
        params_dtype=torch.bfloat16, moe_token_dispatcher_type="alltoall",
    )  # fmt: skip
    _save(model.bfloat16(), root / "experts", {"iteration": 3})
    return _shares(model)


def _model(**more: Any) -> nn.Module:
    from megatron.core import parallel_state as state
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
    from megatron.core.transformer import TransformerConfig

    model_parallel_cuda_manual_seed(1)
    config = TransformerConfig(
        **SIZES, use_cpu_initialization=True, pipeline_dtype=torch.float32,
        tensor_model_parallel_size=state.get_tensor_model_parallel_world_size(),
        pipeline_model_parallel_size=state.get_pipeline_model_parallel_world_size(),
        expert_model_parallel_size=state.get_expert_model_parallel_world_size(),
        gated_linear_unit=True, activation_func=nn.functional.silu, normalization="RMSNorm",
        **more,
    )  # fmt: skip
    spec = get_gpt_layer_local_spec(
        num_experts=more.get("num_moe_experts"), qk_layernorm=more.get("qk_layernorm", False),
        normalization="RMSNorm",
    )  # fmt: skip
    model = GPTModel(
        config, spec, vocab_size=ROWS, max_sequence_length=SEQ_LEN,
        pre_process=state.is_pipeline_first_stage(), post_process=state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=False, position_embedding_type="rope",
    )  # fmt: skip
    for name, parameter in _named(model).items():
        rank = state.get_tensor_model_parallel_rank() if _axis(parameter) is not None else 0
        numbers = torch.Generator().manual_seed(zlib.crc32(f"{name} {rank}".encode()))
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=numbers))
    return model


def _save(model: Any, folder: Path, common: dict[str, Any]) -> None:
    from megatron.core import dist_checkpointing

    state = {"model": model.sharded_state_dict(), **common}
    dist_checkpointing.save(state, str(folder))
    dist.barrier()


def _axis(parameter: Tensor) -> int | None:
    cut = getattr(parameter, "tensor_model_parallel", False)
    return getattr(parameter, "partition_dim", 0) if cut else None


def _named(model: Any) -> dict[str, Tensor]:
    """Parameters by their names in the whole model."""
    from megatron.core import parallel_state

    first = model.decoder.layers[0].layer_number - 1
    experts = 2 * parallel_state.get_expert_model_parallel_rank()
    found = {}
    for name, parameter in model.named_parameters():
        name = re.sub(r"layers\.(\d+)", lambda m: f"layers.{int(m[1]) + first}", name)
        name = re.sub(
            r"local_experts\.(\d+)", lambda m: f"local_experts.{int(m[1]) + experts}", name
        )
        found[name] = parameter
    return found


def _shares(model: nn.Module) -> dict[str, Share]:
    return {name: (p.detach().clone(), _axis(p)) for name, p in _named(model).items()}


def whole(ranks: Iterable[dict[str, Share]]) -> dict[str, Tensor]:
    """Tensors of all ranks put together; tensor ranks are neighbours."""
    shares: dict[str, list[Tensor]] = {}
    axes: dict[str, int | None] = {}
    for rank in ranks:
        for name, (value, axis) in rank.items():
            known = shares.setdefault(name, [])
            if not any(torch.equal(value, other) for other in known):
                known.append(value)
            axes[name] = axis
    return {name: _joined(name, known, axes[name]) for name, known in shares.items()}


def _joined(name: str, shares: list[Tensor], axis: int | None) -> Tensor:
    if len(shares) == 1:
        return shares[0]
    assert axis is not None, name
    if "linear_fc1" in name:
        gates, values = zip(*(share.chunk(2) for share in shares), strict=True)
        return torch.cat([*gates, *values])
    return torch.cat(shares, dim=axis)
