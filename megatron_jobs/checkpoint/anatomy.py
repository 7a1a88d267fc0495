"""Where the parts of a layer are in models of transformers.

Written from their own code (models/*/modeling_*.py), not from the tables of `convert`: what proves
a table must not be made from it.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

Fused = Literal["parts", "heads"]
NORMS = {
    "input_layernorm": "input_layernorm",
    "pre_mlp_layernorm": "post_attention_layernorm",
    "self_attention.q_layernorm": "self_attn.q_norm",
    "self_attention.k_layernorm": "self_attn.k_norm",
}

TENSORS = {
    "mlp.router.expert_bias": "mlp.gate.e_score_correction_bias",
    "mlp.shared_experts.gate_weight": "mlp.shared_expert_gate.weight",
}

ENDS = {"decoder.final_layernorm": "model.norm"}


@dataclass(frozen=True)
class Anatomy:
    """Names of modules below a layer of a stack of theirs, and of some of the model."""

    stack: str = ""
    """`encoder` where the model has a decoder too."""
    layers: str = "model.layers"
    """Of the model: the list of layers."""
    ends: dict[str, str] = field(default_factory=lambda: ENDS)
    """Our name of a module before the first layer or after the last -> theirs, in the model."""
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    """Three projections, or one that holds all."""
    fused: Fused = "parts"
    """Rows of the one: all of q, all of k, all of v; or q, k and v of each head."""
    attention: str = "self_attn"
    """Its first input is what is projected."""
    proj: str = "self_attn.o_proj"
    mlp: str = "mlp"
    """Takes what the feed-forward block takes."""
    inner: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    """Gate and up, or one that holds both, or one where there is no gate; those that exist."""
    down: str = "mlp.down_proj"
    norms: dict[str, str] = field(default_factory=lambda: NORMS)
    """Our name of a module that holds a vector -> theirs."""
    others: dict[str, str] = field(default_factory=dict)
    """The same for matrices that no other entry names."""
    shared: str = ""
    """Experts: the block that every token visits."""
    tensors: dict[str, str] = field(default_factory=lambda: TENSORS)
    """Our name of a single tensor -> theirs."""


LATENT = {
    "self_attention.linear_q_proj": "self_attn.q_proj",
    "self_attention.linear_q_down_proj": "self_attn.q_a_proj",
    "self_attention.linear_q_up_proj": "self_attn.q_b_proj",
    "self_attention.linear_kv_down_proj": "self_attn.kv_a_proj_with_mqa",
    "self_attention.linear_kv_up_proj": "self_attn.kv_b_proj",
}
LATENT_NORMS = NORMS | {
    "self_attention.q_layernorm": "self_attn.q_a_layernorm",
    "self_attention.kv_layernorm": "self_attn.kv_a_layernorm",
}
FOUR_NORMS = NORMS | {
    "post_self_attn_layernorm": "post_attention_layernorm",
    "pre_mlp_layernorm": "pre_feedforward_layernorm",
    "post_mlp_layernorm": "post_feedforward_layernorm",
}


def t5_stack(name: str, stack: str, last: int) -> Anatomy:
    """Encoder or decoder of T5; `last` is the number of the feed-forward part of a block."""
    at, block, cross = "layer.0.SelfAttention", f"layer.{last}.DenseReluDense", "layer.1."
    norms = {
        "input_layernorm": "layer.0.layer_norm",
        "pre_mlp_layernorm": f"layer.{last}.layer_norm",
    }
    others = {f"cross_attention.{n}": f"{cross}EncDecAttention.{n}" for n in "qkv"}
    others["cross_attention.linear_proj"] = cross + "EncDecAttention.o"
    norms["pre_cross_attn_layernorm"] = cross + "layer_norm"
    return Anatomy(
        stack=stack,
        layers=f"{name}.block",
        ends={
            f"{name}.final_layernorm": f"{name}.final_layer_norm",
            f"{name}_relative_pos_emb.relative_attention_bias": (
                f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias"
            ),
        },
        qkv=tuple(f"{at}.{part}" for part in "qkv"),
        attention=at,
        proj=at + ".o",
        mlp=block,
        inner=tuple(f"{block}.{part}" for part in ("wi_0", "wi_1", "wi")),
        down=block + ".wo",
        norms=norms if last == 2 else dict(list(norms.items())[:2]),
        others=others if last == 2 else {},
    )


T5 = (t5_stack("encoder", "encoder", 1), t5_stack("decoder", "", 2))
DEEPSEEK = Anatomy(qkv=(), others=LATENT, norms=LATENT_NORMS, shared="mlp.shared_experts")
GEMMA = Anatomy(norms=FOUR_NORMS)
ANATOMIES: dict[str, Anatomy] = {
    "gpt2": Anatomy(
        layers="transformer.h",
        ends={
            "decoder.final_layernorm": "transformer.ln_f",
            "embedding.position_embeddings": "transformer.wpe",
        },
        qkv=("attn.c_attn",),
        attention="attn",
        proj="attn.c_proj",
        inner=("mlp.c_fc",),
        down="mlp.c_proj",
        norms={"input_layernorm": "ln_1", "pre_mlp_layernorm": "ln_2"},
    ),
    "gpt_neox": Anatomy(
        layers="gpt_neox.layers",
        ends={"decoder.final_layernorm": "gpt_neox.final_layer_norm"},
        qkv=("attention.query_key_value",),
        fused="heads",
        attention="attention",
        proj="attention.dense",
        inner=("mlp.dense_h_to_4h",),
        down="mlp.dense_4h_to_h",
    ),
    "phi3": Anatomy(qkv=("self_attn.qkv_proj",), inner=("mlp.gate_up_proj",)),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "olmo2": Anatomy(
        norms={
            "post_self_attn_layernorm": "post_attention_layernorm",
            "post_mlp_layernorm": "post_feedforward_layernorm",
            "self_attention.q_layernorm": "self_attn.q_norm",
            "self_attention.k_layernorm": "self_attn.k_norm",
        }
    ),
    "qwen2_moe": Anatomy(shared="mlp.shared_expert"),
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "bert": Anatomy(
        layers="bert.encoder.layer",
        ends={
            "embedding.position_embeddings": "bert.embeddings.position_embeddings",
            "embedding.tokentype_embeddings": "bert.embeddings.token_type_embeddings",
            "embedding.layer_norm": "bert.embeddings.LayerNorm",
            "lm_head.dense": "cls.predictions.transform.dense",
            "lm_head.layer_norm": "cls.predictions.transform.LayerNorm",
            "pooler.dense": "bert.pooler.dense",
            "binary_head": "cls.seq_relationship",
        },
        qkv=tuple(f"attention.self.{name}" for name in ("query", "key", "value")),
        attention="attention",
        proj="attention.output.dense",
        mlp="intermediate",
        inner=("intermediate.dense",),
        down="output.dense",
        norms={
            "post_self_attn_layernorm": "attention.output.LayerNorm",
            "post_mlp_layernorm": "output.LayerNorm",
        },
    ),
}
"""model_type of config.json -> its anatomy; others are Llama's."""


def anatomies_of(theirs: Any) -> tuple[Anatomy, ...]:
    """The anatomy of each stack of a model of transformers, the encoder first."""
    kind = theirs.config.model_type
    return T5 if kind == "t5" else (ANATOMIES.get(kind, Anatomy()),)


def part_of_model(theirs: nn.Module, name: str) -> nn.Module | None:
    """A module of a model of theirs, which may be the part of one that has no head."""
    found = part_of(theirs, name)
    return found if found is not None else part_of(theirs, name.partition(".")[2])


def part_of(module: nn.Module, name: str) -> nn.Module | None:
    """The module of that name below another, if there is one."""
    return dict(module.named_modules(remove_duplicate=False)).get(name) if name else None


def matrix_of(module: nn.Module | None) -> Tensor | None:
    """Its weight as [out, in]; GPT-2's Conv1D keeps [in, out]."""
    weight = getattr(module, "weight", None)
    if weight is None:
        return None
    found: Tensor = weight.t() if type(module).__name__ == "Conv1D" else weight
    return found
