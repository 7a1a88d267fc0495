"""Published models with experts: their sizes, and variants that are refused."""

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.router import RouterConfig
from megatron_jobs.config.settings import all_problems
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.family import ignored_names, to_ours
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.errors import DataError, UserError
from tests.family_models import read_model, read_tensors, saved_model

SIZES = {
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
MIXTRAL: dict[str, Any] = SIZES | {
    "model_type": "mixtral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "sliding_window": None,
    "vocab_size": 32000,
}
QWEN2: dict[str, Any] = SIZES | {
    "model_type": "qwen2_moe",
    "decoder_sparse_step": 1,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "moe_intermediate_size": 1408,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3: dict[str, Any] = SIZES | {
    "model_type": "qwen3_moe",
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 128,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "mlp_only_layers": [],
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "vocab_size": 151936,
}
YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "original_max_position_embeddings": 4096,
    "type": "yarn",
}
LITE: dict[str, Any] = SIZES | {
    "model_type": "deepseek_v2",
    "attention_bias": False,
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "moe_intermediate_size": 1408,
    "moe_layer_freq": 1,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rope_scaling": YARN | {"mscale": 0.707, "mscale_all_dim": 0.707},
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "topk_group": 1,
    "topk_method": "greedy",
    "v_head_dim": 128,
    "vocab_size": 102400,
}
V3: dict[str, Any] = LITE | {
    "model_type": "deepseek_v3",
    "first_k_dense_replace": 3,
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
    "rope_scaling": YARN,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "vocab_size": 129280,
}
PUBLISHED = {
    "mixtral": (MIXTRAL, 12.9e9),
    "qwen2_moe": (QWEN2, 2.7e9),
    "qwen3_moe": (QWEN3, 3.3e9),
    "deepseek_v2": (LITE, 2.7e9),
    "deepseek_v3": (V3, 37.5e9),
}
"""config.json, and how many numbers compute a token as its authors say."""


def model_of(name: str, **change: Any) -> ModelConfig:
    return ModelConfig(**FAMILIES[name].settings(PUBLISHED[name][0] | change))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_the_numbers_that_transformers_counts(name: str) -> None:
    config, active = PUBLISHED[name]
    known = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"):
        plain = getattr(transformers, FAMILIES[name].architecture)(known)
    model = model_of(name)
    assert not list(all_problems(model))
    assert FAMILIES[name].misfit(model) == ""
    assert model.parameters() == sum(p.numel() for p in plain.parameters())
    computing = model.parameters(active=True) - model.padded_vocab() * model.hidden
    assert computing == pytest.approx(active, rel=0.15)


def test_what_deepseek_says_of_its_router() -> None:
    assert model_of("deepseek_v3").router == RouterConfig(
        score="sigmoid", scale=2.5, groups=8, groups_per_token=4, bias=True, fp32=True
    )
    assert model_of("deepseek_v3").dense_layers == (0, 1, 2)
    limited = {"topk_method": "group_limited_greedy", "n_group": 8, "topk_group": 3}
    router = model_of("deepseek_v2", **limited).router
    assert (router.groups, router.groups_per_token, router.group_score) == (8, 3, "max")


def test_which_layers_qwen_leaves_dense() -> None:
    change = {"decoder_sparse_step": 2, "mlp_only_layers": [3], "num_hidden_layers": 6}
    assert model_of("qwen2_moe", **change).dense_layers == (0, 2, 3, 4)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("mixtral", {"hidden_act": "tanh"}, "hidden_act 'tanh': silu, gelu, gelu_pytorch_tanh"),
        ("qwen2_moe", {"use_sliding_window": True}, "use_sliding_window True: only False"),
        ("qwen3_moe", {"attention_bias": True}, "attention_bias True: only False"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob True: only False"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method 'noaux_tc': greedy or"),
        ("deepseek_v2", {"moe_layer_freq": 2}, "moe_layer_freq 2: only 1"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func 'softmax': only 'sigmoid'"),
        ("deepseek_v3", {"rope_interleave": False}, "rope_interleave False: only True"),
    ],
)
def test_what_cannot_be_computed_is_named(name: str, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        model_of(name, **change)
    assert str(caught.value).startswith(f"config.json: {sentence}")


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("mixtral", {"experts": 0}, "experts 0"),
        ("mixtral", {"shared_ffn": 8}, "shared_ffn 8"),
        ("mixtral", {"router": RouterConfig(groups=2)}, "router.groups 2"),
        ("qwen2_moe", {"shared_ffn": 0}, "shared_ffn 0"),
        ("qwen2_moe", {"shared_gate": False}, "shared_gate False"),
        ("qwen3_moe", {"qk_norm": False}, "qk_norm False"),
        ("qwen3_moe", {"router": RouterConfig(scale=2.0)}, "router.scale 2.0"),
        ("deepseek_v2", {"dense_layers": (1,)}, "dense_layers (1,), which are not the first"),
        ("deepseek_v2", {"shared_ffn": 99}, "shared_ffn 99, no multiple of 1408"),
        ("deepseek_v3", {"router": RouterConfig()}, "router.score softmax"),
    ],
)
def test_what_they_cannot_say_is_named(name: str, change: dict[str, Any], sentence: str) -> None:
    assert FAMILIES[name].misfit(model_of(name).model_copy(update=change)) == sentence


def test_layers_that_guess_further_ahead_are_left_out(tmp_path: Any) -> None:
    saved_model("deepseek_v3", tmp_path)
    model, ours = read_model("deepseek_v3", tmp_path)
    family, theirs = FAMILIES["deepseek_v3"], read_tensors(tmp_path)
    further: dict[str, Matrix] = {
        "model.layers.4.eh_proj.weight": Stored(np.ones((2, 2), np.float32)),
        "model.layers.4.enorm.weight": Stored(np.ones(2, np.float32)),
    }
    assert ignored_names([*theirs, *further], family, model) == sorted(further)
    assert to_ours(theirs | further, family, model).keys() == ours.keys()
    with pytest.raises(DataError, match=r"model\.layers\.5\.enorm\.weight"):
        odd = {"model.layers.5.enorm.weight": further["model.layers.4.enorm.weight"]}
        to_ours(theirs | odd, family, model)
