"""The same models from another source: transformers, with our weights copied over."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from megatron_jobs.config.model import ModelConfig

Weights = dict[str, Tensor]


def plain_model(model: ModelConfig, weights: Weights) -> nn.Module:
    """A transformers model; `weights` are those of a whole megatron-core GPTModel, by name."""
    if model.position == "rope":
        return filled(LlamaForCausalLM(llama_config(model)), llama_weights(model, weights))
    return filled(GPT2LMHeadModel(gpt2_config(model)), gpt2_weights(model, weights))


def filled(plain: nn.Module, weights: Weights) -> nn.Module:
    missing, unknown = plain.load_state_dict(weights, strict=False)
    assert not unknown
    assert set(missing) <= {"lm_head.weight"}, "only a tied output layer may be left out"
    return plain


def llama_config(model: ModelConfig) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=model.padded_vocab(),
        hidden_size=model.hidden,
        intermediate_size=model.ffn_size(),
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.groups(),
        max_position_embeddings=model.seq_len,
        rms_norm_eps=model.norm_eps,
        rope_theta=float(model.rope_base),
        tie_word_embeddings=model.tied,
    )


def gpt2_config(model: ModelConfig) -> GPT2Config:
    return GPT2Config(
        vocab_size=model.padded_vocab(),
        n_positions=model.seq_len,
        n_embd=model.hidden,
        n_layer=model.layers,
        n_head=model.heads,
        n_inner=model.ffn_size(),
        activation_function="gelu_new",
        layer_norm_epsilon=model.norm_eps,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )


def split_qkv(model: ModelConfig, joined: Tensor) -> list[Tensor]:
    """Queries, keys and values: megatron-core lays them group by group."""
    share, size = model.heads // model.groups(), model.head_size()
    groups = joined.view(model.groups(), share + 2, size, *joined.shape[1:])
    parts = groups[:, :share], groups[:, share], groups[:, share + 1]
    return [part.reshape(-1, *joined.shape[1:]) for part in parts]


def llama_weights(model: ModelConfig, weights: Weights) -> Weights:
    found = {
        "model.embed_tokens.weight": weights["embedding.word_embeddings.weight"],
        "model.norm.weight": weights["decoder.final_layernorm.weight"],
    }
    if not model.tied:
        found["lm_head.weight"] = weights["output_layer.weight"]
    for layer in range(model.layers):
        ours, theirs = f"decoder.layers.{layer}.", f"model.layers.{layer}."
        qkv = split_qkv(model, weights[f"{ours}self_attention.linear_qkv.weight"])
        gate, up = weights[f"{ours}mlp.linear_fc1.weight"].chunk(2)
        for name, part in zip("qkv", qkv, strict=True):
            found[f"{theirs}self_attn.{name}_proj.weight"] = part
        found |= {
            f"{theirs}self_attn.o_proj.weight": weights[f"{ours}self_attention.linear_proj.weight"],
            f"{theirs}mlp.gate_proj.weight": gate,
            f"{theirs}mlp.up_proj.weight": up,
            f"{theirs}mlp.down_proj.weight": weights[f"{ours}mlp.linear_fc2.weight"],
            f"{theirs}input_layernorm.weight": weights[f"{ours}input_layernorm.weight"],
            f"{theirs}post_attention_layernorm.weight": weights[f"{ours}pre_mlp_layernorm.weight"],
        }
    return found


GPT2_NAMES = {
    "input_layernorm": "ln_1",
    "pre_mlp_layernorm": "ln_2",
    "self_attention.linear_proj": "attn.c_proj",
    "mlp.linear_fc1": "mlp.c_fc",
    "mlp.linear_fc2": "mlp.c_proj",
}


def gpt2_weights(model: ModelConfig, weights: Weights) -> Weights:
    found = {
        "transformer.wte.weight": weights["embedding.word_embeddings.weight"],
        "transformer.wpe.weight": weights["embedding.position_embeddings.weight"],
        "transformer.ln_f.weight": weights["decoder.final_layernorm.weight"],
        "transformer.ln_f.bias": weights["decoder.final_layernorm.bias"],
    }
    for layer in range(model.layers):
        ours, theirs = f"decoder.layers.{layer}.", f"transformer.h.{layer}."
        for kind in ("weight", "bias"):
            joined = weights[f"{ours}self_attention.linear_qkv.{kind}"]
            # its matrices are [in, out]
            found[f"{theirs}attn.c_attn.{kind}"] = torch.cat(split_qkv(model, joined)).t()
            for here, there in GPT2_NAMES.items():
                found[f"{theirs}{there}.{kind}"] = weights[f"{ours}{here}.{kind}"].t()
    return found


def plain_losses(plain: nn.Module, batch: dict[str, Tensor]) -> Any:
    """Loss of every position: [B, S]."""
    logits = plain(batch["tokens"]).logits
    return nn.functional.cross_entropy(logits.transpose(1, 2), batch["labels"], reduction="none")
