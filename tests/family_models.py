"""Small models of transformers, one of each family, with random weights. Another is a line here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.numpy import load_file
from torch import Tensor, nn

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import Family, to_ours
from megatron_jobs.convert.matrix import Matrix, Stored

VOCAB = 300
SEQ_LEN = 64
LLAMA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": SEQ_LEN,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_embd": 32,
    "n_layer": 4,
    "n_head": 4,
    "n_positions": SEQ_LEN,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
}

GEMMA: dict[str, Any] = LLAMA | {
    "head_dim": 16,
    "query_pre_attn_scalar": 24,
    "sliding_window": 7,
    "final_logit_softcapping": 1.5,
    "rms_norm_eps": 1e-4,
}
GEMMA3_LAYERS = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
GEMMA3_ANGLES = {
    "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}
NEOX: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": SEQ_LEN,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "layer_norm_eps": 1e-4,
    "rope_parameters": {"rope_theta": 5000.0, "partial_rotary_factor": 0.5},
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
QWEN = LLAMA | {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 6.0],
    "partial_rotary_factor": 0.5,
    "rope_theta": 5000.0,
}
EXPERTS: dict[str, Any] = LLAMA | {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "rms_norm_eps": 1e-4,
}
QWEN2_EXPERTS = EXPERTS | {"shared_expert_intermediate_size": 40, "mlp_only_layers": [2]}
LATENT: dict[str, Any] = LLAMA | {
    "num_key_value_heads": 4,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 24,
    "q_lora_rank": 12,
    "kv_lora_rank": 20,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "v_head_dim": 14,
    "rms_norm_eps": 1e-4,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "n_group": 4,
    "topk_group": 2,
}
LATENT_YARN = YARN | {"mscale": 0.7, "mscale_all_dim": 1.3, "rope_theta": 300.0}
PHI = LLAMA | {"sliding_window": 9, "original_max_position_embeddings": 24}


@dataclass(frozen=True)
class Case:
    """A decoder of transformers, small."""

    config: str
    """The class of its configuration."""
    values: dict[str, Any] = field(default_factory=dict)
    """What it is called with."""
    cut: bool = True
    """Whether two tensor ranks of two pipeline stages can hold it."""
    family: str = ""
    """Its name among ours; that of the case where it is not given."""
    sparse: bool = False
    """Whether it has experts: tensor ranks need sequence parallelism then."""


CASES: dict[str, Case] = {
    "llama": Case("LlamaConfig", LLAMA),
    "llama 3.1": Case("LlamaConfig", LLAMA | {"rope_parameters": LLAMA3}, family="llama"),
    "llama linear": Case(
        "LlamaConfig",
        LLAMA
        | {
            "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
        },
        family="llama",
    ),
    "llama yarn": Case("LlamaConfig", LLAMA | {"rope_parameters": YARN}, family="llama"),
    "mistral": Case("MistralConfig", LLAMA | {"sliding_window": 7, "head_dim": 16}),
    "qwen2": Case("Qwen2Config", QWEN | {"rms_norm_eps": 1e-4, "tie_word_embeddings": True}),
    "qwen3": Case("Qwen3Config", QWEN | {"head_dim": 16, "rope_parameters": YARN}),
    "phi3": Case("Phi3Config", PHI | {"rope_parameters": LONG}),
    "gpt2": Case("GPT2Config", GPT2),
    "gemma2": Case("Gemma2Config", GEMMA | {"attn_logit_softcapping": 2.0}),
    "gemma3": Case("Gemma3TextConfig", GEMMA | {"layer_types": GEMMA3_LAYERS}),
    "gemma3 stretched": Case(
        "Gemma3TextConfig",
        GEMMA | {"layer_types": GEMMA3_LAYERS, "rope_parameters": GEMMA3_ANGLES},
        family="gemma3",
    ),
    "gpt_neox": Case("GPTNeoXConfig", NEOX),
    "gpt_neox in line": Case(
        "GPTNeoXConfig",
        NEOX | {"use_parallel_residual": False, "hidden_act": "gelu_new"},
        family="gpt_neox",
    ),
    "olmo2": Case("Olmo2Config", LLAMA | {"rms_norm_eps": 1e-4}),
    "mixtral": Case(
        "MixtralConfig",
        LLAMA | {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 7},
        sparse=True,
    ),
    "qwen2_moe": Case("Qwen2MoeConfig", QWEN2_EXPERTS, sparse=True),
    "qwen2_moe every other": Case(
        "Qwen2MoeConfig",
        QWEN2_EXPERTS | {"decoder_sparse_step": 2, "norm_topk_prob": True},
        family="qwen2_moe",
        sparse=True,
    ),
    "qwen3_moe": Case(
        "Qwen3MoeConfig",
        EXPERTS | {"head_dim": 16, "norm_topk_prob": True, "rope_parameters": YARN},
        sparse=True,
    ),
    "deepseek_v2": Case(
        "DeepseekV2Config",
        LATENT | {"topk_method": "group_limited_greedy", "rope_parameters": LATENT_YARN},
        sparse=True,
    ),
    "deepseek_v2 lite": Case(
        "DeepseekV2Config",
        LATENT | {"q_lora_rank": None, "topk_method": "greedy", "n_shared_experts": 1},
        family="deepseek_v2",
        sparse=True,
    ),
    "deepseek_v3": Case("DeepseekV3Config", LATENT | {"rope_parameters": LATENT_YARN}, sparse=True),
}
"""Decoders; each test of tests/dist/test_family_logits.py runs on all of them."""


def family_of(name: str) -> Family:
    """The family of a case."""
    return FAMILIES[CASES[name].family or name]


def transformers_model(name: str) -> nn.Module:
    """Random weights, none of them left at one or zero; fp32, ready to be asked."""
    case = CASES[name]
    config = getattr(transformers, case.config)(**case.values)
    config._attn_implementation = "eager"
    torch.manual_seed(7)
    model: nn.Module = getattr(transformers, family_of(name).architecture)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                buffer.add_(0.1 * torch.randn_like(buffer))
    return model.float().eval()


def saved_model(name: str, folder: Path) -> nn.Module:
    """The model of a case, which `folder` then holds as transformers writes it."""
    model = transformers_model(name)
    model.save_pretrained(folder)  # type: ignore[operator]
    return model


def read_tensors(folder: Path) -> dict[str, Matrix]:
    """All tensors of a folder of transformers."""
    found = {
        n: a for file in sorted(folder.glob("*.safetensors")) for n, a in load_file(file).items()
    }
    return {name: Stored(array) for name, array in found.items()}


def read_model(name: str, folder: Path) -> tuple[ModelConfig, Mapping[str, Matrix]]:
    """Settings and tensors, in our form, of a folder of transformers."""
    family = family_of(name)
    values = json.loads((folder / "config.json").read_text())
    assert values["model_type"] == family.model_type
    model = ModelConfig(**family.settings(values))
    assert not list(model.problems())
    return model, to_ours(read_tensors(folder), family, model)


def probe_tokens(length: int = 40) -> Tensor:
    """[2, length], more than any window of a case."""
    draw = torch.Generator().manual_seed(3)
    return torch.randint(0, VOCAB, (2, length), generator=draw)
