"""GGUF's names of tensors and Hugging Face's: a table for each architecture, read both ways.

Names alone, and what lies differently. H hidden, D columns of a head, E experts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

T = TypeVar("T")
Change = Literal["same", "queries", "keys", "one", "turned", "neox", "row"]
"""queries, keys: GGUF keeps the two columns that rotary angles turn together as neighbours;
one: it keeps 1 + w; turned: Hugging Face keeps [in, out]; neox: Hugging Face keeps q, k and v of
each head together; row: Hugging Face keeps a vector as a matrix of one row."""


@dataclass(frozen=True)
class Line:
    """A tensor; `{layer}` stands for numbers from 0. GGUF stacks what is `{expert}` in theirs."""

    gguf: str
    theirs: str
    change: Change = "same"
    optional: bool = False
    """A model may lack it; which ones do, the table of its family says."""


def _lines(places: Mapping[str, str], change: Change = "same", **more: Any) -> tuple[Line, ...]:
    return tuple(Line(gguf, theirs, change, **more) for gguf, theirs in places.items())


def _both(gguf: str, theirs: str, change: Change = "same") -> tuple[Line, Line]:
    """Weight and bias, of which the bias lies as it is unless q, k and v lie mixed."""
    same: Change = "same" if change == "turned" else change
    weight = Line(f"{gguf}.weight", f"{theirs}.weight", change)
    return weight, Line(f"{gguf}.bias", f"{theirs}.bias", same)


BLOCK, LAYER = "blk.{layer}.", "model.layers.{layer}."
ATTENTION = LAYER + "self_attn."
_ENDS = _lines({"token_embd.weight": "model.embed_tokens.weight"})
_OUTPUT = (Line("output.weight", "lm_head.weight", optional=True),)
_OUTPUT_NORM = _lines({"output_norm.weight": "model.norm.weight"})
_NORMS = {
    BLOCK + "attn_norm.weight": LAYER + "input_layernorm.weight",
    BLOCK + "ffn_norm.weight": LAYER + "post_attention_layernorm.weight",
}
_GEMMA_NORMS = {
    BLOCK + "attn_norm.weight": LAYER + "input_layernorm.weight",
    BLOCK + "post_attention_norm.weight": LAYER + "post_attention_layernorm.weight",
    BLOCK + "ffn_norm.weight": LAYER + "pre_feedforward_layernorm.weight",
    BLOCK + "post_ffw_norm.weight": LAYER + "post_feedforward_layernorm.weight",
}
_HEAD_NORMS = {
    BLOCK + "attn_q_norm.weight": ATTENTION + "q_norm.weight",
    BLOCK + "attn_k_norm.weight": ATTENTION + "k_norm.weight",
}
_MLP = {
    BLOCK + f"ffn_{name}.{kind}": LAYER + f"mlp.{name}_proj.{kind}"
    for name in ("gate", "up", "down")
    for kind in ("weight", "bias")
}


def _attention(queries: Change = "same", keys: Change = "same") -> tuple[Line, ...]:
    """q, k, v and what joins the heads, apart."""
    changes: dict[str, Change] = {"q": queries, "k": keys, "v": "same"}
    lines = [
        Line(BLOCK + f"attn_{n}.{kind}", ATTENTION + f"{n}_proj.{kind}", change, kind == "bias")
        for n, change in changes.items()
        for kind in ("weight", "bias")
    ]
    output = BLOCK + "attn_output.", ATTENTION + "o_proj."
    lines += [Line(output[0] + kind, output[1] + kind, optional=kind == "bias") for kind in KINDS]
    return tuple(lines)


KINDS = ("weight", "bias")
_DENSE = tuple(Line(g, t, optional=g.endswith("bias")) for g, t in _MLP.items())
_LLAMA = (*_ENDS, *_OUTPUT, *_OUTPUT_NORM, *_lines(_NORMS), *_attention("queries", "keys"))
_QWEN = (*_ENDS, *_OUTPUT, *_OUTPUT_NORM, *_lines(_NORMS), *_attention())


def _experts(prefix: str, gate: str, up: str, down: str) -> tuple[Line, ...]:
    names = {"gate": gate, "up": up, "down": down}
    router = Line(BLOCK + "ffn_gate_inp.weight", LAYER + prefix + "gate.weight")
    experts = LAYER + prefix + "experts.{expert}."
    stacks = {BLOCK + f"ffn_{n}_exps.weight": experts + f"{t}.weight" for n, t in names.items()}
    return (router, *_lines(stacks))


_SHARED = (
    *_lines(
        {
            BLOCK + f"ffn_{n}_shexp.weight": LAYER + f"mlp.shared_expert.{n}_proj.weight"
            for n in ("gate", "up", "down")
        }
    ),
    Line(BLOCK + "ffn_gate_inp_shexp.weight", LAYER + "mlp.shared_expert_gate.weight", "row"),
)
_MLP_EXPERTS = _experts("mlp.", "gate_proj", "up_proj", "down_proj")
_GEMMA = (*_ENDS, *_lines({"output_norm.weight": "model.norm.weight"}, "one"))
_GEMMA += (*_lines(_GEMMA_NORMS, "one"), *_attention(), *_DENSE)
_PHI3 = {
    BLOCK + "attn_qkv.weight": ATTENTION + "qkv_proj.weight",
    BLOCK + "attn_output.weight": ATTENTION + "o_proj.weight",
    BLOCK + "ffn_up.weight": LAYER + "mlp.gate_up_proj.weight",
    BLOCK + "ffn_down.weight": LAYER + "mlp.down_proj.weight",
}
_OLMO2_NORMS = {
    BLOCK + "post_attention_norm.weight": LAYER + "post_attention_layernorm.weight",
    BLOCK + "post_ffw_norm.weight": LAYER + "post_feedforward_layernorm.weight",
}
_H = "transformer.h.{layer}."
_GPT2 = (
    *_lines({"token_embd.weight": "transformer.wte.weight"}),
    *_lines({"position_embd.weight": "transformer.wpe.weight"}),
    *_OUTPUT,
    *_both("output_norm", "transformer.ln_f"),
    *_both(BLOCK + "attn_norm", _H + "ln_1"),
    *_both(BLOCK + "attn_qkv", _H + "attn.c_attn", "turned"),
    *_both(BLOCK + "attn_output", _H + "attn.c_proj", "turned"),
    *_both(BLOCK + "ffn_norm", _H + "ln_2"),
    *_both(BLOCK + "ffn_up", _H + "mlp.c_fc", "turned"),
    *_both(BLOCK + "ffn_down", _H + "mlp.c_proj", "turned"),
)
_N = "gpt_neox.layers.{layer}."
_NEOX = (
    *_lines({"token_embd.weight": "gpt_neox.embed_in.weight"}),
    Line("output.weight", "embed_out.weight", optional=True),
    *_both("output_norm", "gpt_neox.final_layer_norm"),
    *_both(BLOCK + "attn_norm", _N + "input_layernorm"),
    *_both(BLOCK + "attn_qkv", _N + "attention.query_key_value", "neox"),
    *_both(BLOCK + "attn_output", _N + "attention.dense"),
    *_both(BLOCK + "ffn_norm", _N + "post_attention_layernorm"),
    *_both(BLOCK + "ffn_up", _N + "mlp.dense_h_to_4h"),
    *_both(BLOCK + "ffn_down", _N + "mlp.dense_4h_to_h"),
)
_LATENT = {
    BLOCK + f"{gguf}.weight": ATTENTION + f"{theirs}.weight"
    for gguf, theirs in {
        "attn_kv_a_mqa": "kv_a_proj_with_mqa",
        "attn_kv_a_norm": "kv_a_layernorm",
        "attn_kv_b": "kv_b_proj",
        "attn_output": "o_proj",
    }.items()
}
"""attn_kv_b lies in two: see `gguf_latent`."""
_LATENT_QUERIES = {
    BLOCK + f"{gguf}.weight": ATTENTION + f"{theirs}.weight"
    for gguf, theirs in {
        "attn_q": "q_proj",
        "attn_q_a": "q_a_proj",
        "attn_q_a_norm": "q_a_layernorm",
        "attn_q_b": "q_b_proj",
    }.items()
}
_SOME_EXPERTS = (
    *(replace(line, optional=True) for line in _MLP_EXPERTS),
    *_lines(
        {
            BLOCK + f"ffn_{n}_shexp.weight": LAYER + f"mlp.shared_experts.{n}_proj.weight"
            for n in ("gate", "up", "down")
        },
        optional=True,
    ),
    *(replace(line, optional=True) for line in _DENSE if line.gguf.endswith("weight")),
)
"""Of layers with experts and of those without."""
_DEEPSEEK2 = (*_ENDS, *_OUTPUT, *_OUTPUT_NORM, *_lines(_NORMS | _LATENT))
_DEEPSEEK2 += (*_lines(_LATENT_QUERIES, optional=True), *_SOME_EXPERTS)
_SCORE_BIAS = Line(
    BLOCK + "exp_probs_b.bias", LAYER + "mlp.gate.e_score_correction_bias", optional=True
)
_B = "encoder.layer.{layer}."
_BERT = (
    *_lines({"token_embd.weight": "embeddings.word_embeddings.weight"}),
    *_lines({"position_embd.weight": "embeddings.position_embeddings.weight"}),
    *_lines({"token_types.weight": "embeddings.token_type_embeddings.weight"}, optional=True),
    *_both("token_embd_norm", "embeddings.LayerNorm"),
    *_both(BLOCK + "attn_q", _B + "attention.self.query"),
    *_both(BLOCK + "attn_k", _B + "attention.self.key"),
    *_both(BLOCK + "attn_v", _B + "attention.self.value"),
    *_both(BLOCK + "attn_output", _B + "attention.output.dense"),
    *_both(BLOCK + "attn_output_norm", _B + "attention.output.LayerNorm"),
    *_both(BLOCK + "ffn_up", _B + "intermediate.dense"),
    *_both(BLOCK + "ffn_down", _B + "output.dense"),
    *_both(BLOCK + "layer_output_norm", _B + "output.LayerNorm"),
)


def _t5_stack(gguf: str, theirs: str, last: int) -> tuple[Line, ...]:
    """What encoder and decoder both have; `last` is the number of their feed-forward part."""
    block, layer = f"{gguf}.blk.{{layer}}.", f"{theirs}.block.{{layer}}.layer."
    first, dense = f"{theirs}.block.0.layer.0.SelfAttention.", f"{layer}{last}.DenseReluDense."
    gated = {"ffn_gate": "wi_0", "ffn_up": "wi_1"}
    return (
        *_lines({f"{gguf}.blk.0.attn_rel_b.weight": first + "relative_attention_bias.weight"}),
        *_lines({block + "attn_norm.weight": layer + "0.layer_norm.weight"}),
        *_lines({f"{block}attn_{n}.weight": f"{layer}0.SelfAttention.{n}.weight" for n in "qkvo"}),
        *_lines({block + "ffn_norm.weight": f"{layer}{last}.layer_norm.weight"}),
        *_lines(
            {f"{block}{g}.weight": f"{dense}{t}.weight" for g, t in gated.items()}, optional=True
        ),
        *_lines({block + "ffn_up.weight": dense + "wi.weight"}, optional=True),
        *_lines({block + "ffn_down.weight": dense + "wo.weight"}),
        *_lines({f"{gguf}.output_norm.weight": f"{theirs}.final_layer_norm.weight"}),
    )


_CROSS, _D = "dec.blk.{layer}.cross_attn_", "decoder.block.{layer}.layer.1."
_DISTANCES = "EncDecAttention.relative_attention_bias.weight"
_T5 = (
    *_lines({"token_embd.weight": "shared.weight"}),
    *_OUTPUT,
    *_t5_stack("enc", "encoder", 1),
    *_t5_stack("dec", "decoder", 2),
    *_lines({_CROSS + "norm.weight": _D + "layer_norm.weight"}),
    *_lines({f"{_CROSS}{n}.weight": f"{_D}EncDecAttention.{n}.weight" for n in "qkvo"}),
    *_lines({_CROSS + "rel_b.weight": _D + _DISTANCES}, optional=True),
)
"""The distances of cross attention lie in old files, and nothing reads them."""


@dataclass(frozen=True)
class Architecture:
    """How a model_type of Hugging Face's lies in GGUF."""

    name: str
    """GGUF's general.architecture, the prefix of its metadata."""
    model_type: str
    lines: tuple[Line, ...]
    prefix: str = ""
    """Before the names of a model that has heads, which GGUF has not."""
    heads: tuple[str, ...] = ()
    """Beginnings of the names of those heads."""
    head_settings: frozenset[str] = frozenset()
    """What our settings say of them."""

    def kept(self, tensors: Mapping[str, T]) -> dict[str, T]:
        """Those of Hugging Face's tensors that GGUF has a place for, by the table's names."""
        bare = {name.removeprefix(self.prefix): tensor for name, tensor in tensors.items()}
        return {name: t for name, t in bare.items() if not name.startswith(self.heads)}


_ALL = (
    Architecture("llama", "llama", (*_LLAMA, *_DENSE)),
    Architecture("llama", "mistral", (*_LLAMA, *_DENSE)),
    Architecture("llama", "mixtral", (*_LLAMA, *_experts("block_sparse_moe.", "w1", "w3", "w2"))),
    Architecture("qwen2", "qwen2", (*_QWEN, *_DENSE)),
    Architecture("qwen3", "qwen3", (*_QWEN, *_lines(_HEAD_NORMS), *_DENSE)),
    Architecture("qwen2moe", "qwen2_moe", (*_QWEN, *_MLP_EXPERTS, *_SHARED)),
    Architecture("qwen3moe", "qwen3_moe", (*_QWEN, *_lines(_HEAD_NORMS), *_MLP_EXPERTS)),
    Architecture("gemma2", "gemma2", _GEMMA),
    Architecture("gemma3", "gemma3_text", (*_GEMMA, *_OUTPUT, *_lines(_HEAD_NORMS, "one"))),
    Architecture("phi3", "phi3", (*_ENDS, *_OUTPUT, *_OUTPUT_NORM, *_lines(_NORMS | _PHI3))),
    Architecture(
        "olmo2",
        "olmo2",
        (
            *(*_ENDS, *_OUTPUT, *_OUTPUT_NORM, *_lines(_OLMO2_NORMS | _HEAD_NORMS)),
            *(*_attention(), *_DENSE),
        ),
    ),
    Architecture("gpt2", "gpt2", _GPT2),
    Architecture("gptneox", "gpt_neox", _NEOX),
    Architecture("deepseek2", "deepseek_v2", _DEEPSEEK2),
    Architecture("deepseek2", "deepseek_v3", (*_DEEPSEEK2, _SCORE_BIAS)),
    Architecture(
        *("bert", "bert", _BERT, "bert.", ("cls.", "pooler.")),
        frozenset({"token_head", "sentence_head", "pooler", "output_bias"}),
    ),
    Architecture("t5", "t5", _T5),
)
ARCHITECTURES = {architecture.model_type: architecture for architecture in _ALL}
"""By model_type of config.json."""
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are settings to Hugging Face: what the wavelengths of rotary angles are
multiplied by."""
LAYERS = re.compile(r"((?:enc\.|dec\.)?)blk\.(\d+)\.")
"""Stack and number of a layer."""


def layers_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Stack -> its layers: `enc.` and `dec.`, or one that has no name."""
    if "num_layers" in config:
        layers = int(config["num_layers"])
        return {"enc.": layers, "dec.": int(config.get("num_decoder_layers") or layers)}
    return {"": int(config.get("num_hidden_layers", config.get("n_layer", 0)))}


def written_out(architecture: Architecture, layers: Mapping[str, int]) -> Iterator[Line]:
    """Every line for every layer of each stack."""
    for line in architecture.lines:
        stack = line.gguf.partition("blk.")[0]
        for layer in range(layers[stack]) if "{layer}" in line.gguf else (0,):
            fill = {"layer": layer}
            theirs = line.theirs.replace("{layer}", str(layer))
            yield Line(line.gguf.format(**fill), theirs, line.change, line.optional)
