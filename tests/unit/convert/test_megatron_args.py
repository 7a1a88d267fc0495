"""Arguments of Megatron-LM say the model that megatron-core would build of them."""

from typing import Any

import pytest

from megatron_jobs.convert.megatron_args import model_of_args
from megatron_jobs.errors import DataError, UserError

BASE: dict[str, Any] = {
    "num_layers": 6, "hidden_size": 64, "num_attention_heads": 8, "ffn_hidden_size": 256,
    "max_position_embeddings": 128, "seq_length": 64, "padded_vocab_size": 1024,
    "position_embedding_type": "rope", "normalization": "RMSNorm", "swiglu": True,
    "add_bias_linear": False, "untie_embeddings_and_output_weights": True,
}  # fmt: skip
MIXTURE = {"num_experts": 8, "moe_router_topk": 2}
LATENT = {
    "multi_latent_attention": True, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_head_dim": 8,
    "qk_pos_emb_head_dim": 4, "v_head_dim": 8, "rotary_scaling_factor": 40.0, "mscale": 1.0,
    "mscale_all_dim": 1.0, "rope_type": "yarn",
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama": ({}, {"layers": 6, "kv_heads": 8, "activation": "swiglu", "tied": False, "ffn": 256}),
    "grouped": ({"group_query_attention": True, "num_query_groups": 2}, {"kv_heads": 2}),
    "not grouped": ({"group_query_attention": False, "num_query_groups": 1}, {"kv_heads": 8}),
    "gpt": (
        {"position_embedding_type": "learned_absolute", "swiglu": False, "add_bias_linear": True,
         "normalization": "LayerNorm", "untie_embeddings_and_output_weights": False},
        {"position": "learned", "activation": "gelu_tanh", "bias": True, "tied": True,
         "norm": "layernorm", "seq_len": 128},
    ),
    "exact gelu": (
        {"swiglu": False, "add_bias_linear": True, "bias_gelu_fusion": False},
        {"activation": "gelu"},
    ),
    "gelu without a bias": ({"swiglu": False}, {"activation": "gelu"}),
    "gelu of openai": ({"swiglu": False, "openai_gelu": True}, {"activation": "gelu_tanh"}),
    "angles": (
        {"rotary_base": 500000, "rotary_percent": 0.5, "rotary_interleaved": True},
        {"rope_base": 500000, "rope_share": 0.5, "rope_interleaved": True},
    ),
    "vocabulary": (
        {"vocab_size": 1000, "make_vocab_size_divisible_by": 128, "tensor_model_parallel_size": 2},
        {"vocab_size": 1000, "pad_vocab_to": 256},
    ),
    "odd padding": ({"vocab_size": 1000, "padded_vocab_size": 1111}, {"pad_vocab_to": 1111}),
    "window": (
        {"window_size": (31, 0), "window_attn_skip_freq": 3},
        {"window": 32, "full_layers": (2, 5)},
    ),
    "window by list": (
        {"window_size": [7, 0], "window_attn_skip_freq": [1, 0, 1, 1, 0, 1]},
        {"window": 8, "full_layers": (1, 4)},
    ),
    "biases of qkv": ({"add_qkv_bias": True, "qk_layernorm": True}, {"qkv_bias": True,
                                                                     "qk_norm": True}),
    "norm of one plus": ({"apply_layernorm_1p": True, "norm_epsilon": 1e-6},
                         {"norm_offset": True, "norm_eps": 1e-6}),
    "experts": (
        MIXTURE | {"moe_ffn_hidden_size": 32, "moe_shared_expert_intermediate_size": 48,
                   "moe_aux_loss_coeff": 0.01, "moe_shared_expert_gate": True},
        {"experts": 8, "experts_per_token": 2, "expert_ffn": 32, "shared_ffn": 48,
         "shared_gate": True, "balance_loss": 0.01, "dense_layers": ()},
    ),
    "some experts": (MIXTURE | {"moe_layer_freq": 2}, {"dense_layers": (1, 3, 5)}),
    "listed experts": (MIXTURE | {"moe_layer_freq": [0, 1, 1, 1, 1, 1]}, {"dense_layers": (0,)}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_arguments_say(name: str) -> None:
    more, wanted = CASES[name]
    model = model_of_args(BASE | more, "w")
    assert {key: getattr(model, key) for key in wanted} == wanted
    assert model.padded_vocab() == (BASE | more)["padded_vocab_size"]


def test_arguments_of_older_versions() -> None:
    old = {key: value for key, value in BASE.items() if key not in (
        "position_embedding_type", "normalization", "add_bias_linear", "swiglu")}  # fmt: skip
    model = model_of_args(old | {"use_rotary_position_embeddings": True}, "w")
    assert (model.position, model.norm, model.bias) == ("rope", "layernorm", True)
    assert model_of_args(old, "w").position == "learned"
    assert not model_of_args(old | {"disable_bias_linear": True}, "w").bias


def test_the_router_of_deepseek() -> None:
    more = MIXTURE | {
        "num_experts": 16, "moe_router_topk": 4, "moe_router_score_function": "sigmoid",
        "moe_router_num_groups": 4, "moe_router_group_topk": 2, "moe_router_dtype": "fp32",
        "moe_router_enable_expert_bias": True, "moe_router_topk_scaling_factor": 2.5,
    }  # fmt: skip
    router = model_of_args(BASE | LATENT | more, "w").router
    wanted = {
        "score": "sigmoid", "normalize": True, "scale": 2.5, "groups": 4, "groups_per_token": 2,
        "group_score": "top2", "bias": True, "fp32": True,
    }  # fmt: skip
    assert router.model_dump() == wanted


def test_softmax_before_the_choice_is_not_normalised() -> None:
    assert model_of_args(BASE | MIXTURE, "w").router.normalize
    before = model_of_args(BASE | MIXTURE | {"moe_router_pre_softmax": True}, "w")
    assert not before.router.normalize


def test_latent_attention() -> None:
    model = model_of_args(BASE | LATENT, "w")
    assert model.latent is not None
    assert (model.latent.q_rank, model.latent.rope_dim, model.rope_interleaved) == (24, 4, True)
    assert model.rope_scaling is not None
    assert (model.rope_scaling.kind, model.rope_scaling.factor) == ("yarn", 40.0)


def test_angles_of_llama_3() -> None:
    more = {"use_rope_scaling": True, "rope_scaling_factor": 32.0}
    scaling = model_of_args(BASE | more, "w").rope_scaling
    assert scaling is not None
    found = scaling.kind, scaling.factor, scaling.original_seq_len
    assert found == ("llama3", 32.0, 8192)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "activation": ({"squared_relu": True}, "w: args: squared_relu True: cannot be computed here"),
    "position": ({"position_embedding_type": "mrope"}, "position_embedding_type mrope: cannot"),
    "norm": ({"normalization": "BatchNorm"}, "normalization BatchNorm: cannot be computed here"),
    "heads of tokens": ({"mtp_num_layers": 1}, "mtp_num_layers 1: cannot be computed here"),
    "capacity": (MIXTURE | {"moe_expert_capacity_factor": 1.0}, "moe_expert_capacity_factor 1.0"),
    "score": (MIXTURE | {"moe_router_score_function": "sqrtsoftplus"}, "softmax and sigmoid can"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_is_named(name: str) -> None:
    more, words = REFUSED[name]
    with pytest.raises(UserError, match=words):
        model_of_args(BASE | more, "w")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"num_layers": "six"}, "w: args: not those of a model"),
        ({"num_attention_heads": 7, "num_query_groups": 7}, "w: args: heads: 7 heads do not"),
        ({"window_size": 5}, "w: args: not those of a model"),
        ({"window_size": (5, 0), "window_attn_skip_freq": [1]}, "w: args: not those of a model"),
        ({"rotary_base": "x"}, "w: args: not those of a model"),
    ],
)
def test_what_cannot_be_true_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        model_of_args(BASE | more, "w")


def test_what_is_missing_is_named() -> None:
    for name in ("num_layers", "hidden_size", "num_attention_heads"):
        with pytest.raises(DataError, match=f"w: args: {name}: missing"):
            model_of_args({key: value for key, value in BASE.items() if key != name}, "w")
