"""GGUF's names of tensors and Hugging Face's: a table for each architecture, read both ways.

Names alone, and what lies differently. H hidden, D columns of a head, E experts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

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


@dataclass(frozen=True)
class Architecture:
    """How a model_type of Hugging Face's lies in GGUF."""

    name: str
    """GGUF's general.architecture, the prefix of its metadata."""
    model_type: str
    lines: tuple[Line, ...]


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
)
ARCHITECTURES = {architecture.model_type: architecture for architecture in _ALL}
"""By model_type of config.json."""
FACTORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that are settings to Hugging Face: what the wavelengths of rotary angles are
multiplied by."""
LAYERS = re.compile(r"blk\.(\d+)\.")


def written_out(architecture: Architecture, layers: int) -> Iterator[Line]:
    """Every line for every layer."""
    for line in architecture.lines:
        for layer in range(layers) if "{layer}" in line.gguf else (0,):
            fill = {"layer": layer}
            theirs = line.theirs.replace("{layer}", str(layer))
            yield Line(line.gguf.format(**fill), theirs, line.change, line.optional)
