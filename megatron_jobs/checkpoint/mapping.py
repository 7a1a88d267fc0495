"""How Hugging Face's tensors and megatron-core's correspond, as one table for each architecture.

H hidden, F ffn, V vocabulary, P rows of the embedding (V padded), S positions, D head size,
G key/value groups, Q query heads of a group.

A row says which tensors of theirs make one of ours, and in which form. Both directions read the
same row, and both check that every tensor is used once and none is left.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.errors import DataError


@dataclass(frozen=True)
class Form:
    """How tensors of theirs become one of ours, and back."""

    join: Callable[[list[Tensor], ModelConfig], Tensor]
    split: Callable[[Tensor, ModelConfig], list[Tensor]]


@dataclass(frozen=True)
class Row:
    """One line of the table; `{layer}` stands for the layer's number in both names."""

    ours: str
    theirs: tuple[str, ...]
    form: Form
    optional: bool = False
    """May be absent: biases, an output layer of its own."""


def join_qkv(parts: list[Tensor], model: ModelConfig) -> Tensor:
    """q [G Q D, ...], k [G D, ...], v [G D, ...] -> [G (Q + 2) D, ...], interleaved by group."""
    grouped = [part.reshape(model.groups(), -1, *part.shape[1:]) for part in parts]
    return torch.cat(grouped, dim=1).flatten(0, 1)


def split_qkv(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    """The way back from `join_qkv`."""
    head = model.head_size()
    sizes = [model.heads // model.groups() * head, head, head]
    grouped = whole.reshape(model.groups(), -1, *whole.shape[1:])
    return [part.flatten(0, 1) for part in torch.split(grouped, sizes, dim=1)]


def pad_rows(parts: list[Tensor], model: ModelConfig) -> Tensor:
    """One [V, H] -> [P, H]; each further row is the mean of all.

    Their logits are the mean of the others then, so that by Jensen's inequality they add at most
    log(P / V) to a loss; rows of zeros would outweigh GPT-2's logits, which are far below zero.
    """
    (known_VH,) = parts
    if len(known_VH) != model.vocab_size:
        raise ValueError(f"{len(known_VH)} rows are not those of {model.vocab_size} tokens")
    missing = model.padded_vocab() - len(known_VH)
    mean_1H = known_VH.float().mean(0, keepdim=True).to(known_VH.dtype)
    return torch.cat([known_VH, mean_1H.expand(missing, -1)])


def trim_rows(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    """The way back from `pad_rows`."""
    return [whole[: model.vocab_size]]


def _pair(parts: list[Tensor], model: ModelConfig) -> Tensor:
    return torch.cat(parts)


def _unpair(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    return list(whole.chunk(2))


def _same(parts: list[Tensor], model: ModelConfig) -> Tensor:
    return parts[0]


def _alone(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    return [whole]


def _turned(parts: list[Tensor], model: ModelConfig) -> Tensor:
    return parts[0].t()


def _turned_back(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    return [whole.t()]


def _turned_qkv(parts: list[Tensor], model: ModelConfig) -> Tensor:
    return join_qkv(list(parts[0].t().chunk(3)), model)


def _turned_qkv_back(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    return [torch.cat(split_qkv(whole, model)).t()]


def _bias_qkv(parts: list[Tensor], model: ModelConfig) -> Tensor:
    return join_qkv(list(parts[0].chunk(3)), model)


def _bias_qkv_back(whole: Tensor, model: ModelConfig) -> list[Tensor]:
    return [torch.cat(split_qkv(whole, model))]


PLAIN = Form(_same, _alone)
ROWS = Form(pad_rows, trim_rows)
"""A row for each token, and padding that is ours alone."""
QKV = Form(join_qkv, split_qkv)
"""Separate q, k and v projections."""
GATE_UP = Form(_pair, _unpair)
"""Gate above up, as in megatron-core's gated MLP."""
TURNED = Form(_turned, _turned_back)
"""GPT-2's Conv1D keeps its weights [in, out]."""
TURNED_QKV = Form(_turned_qkv, _turned_qkv_back)
BIAS_QKV = Form(_bias_qkv, _bias_qkv_back)

OURS, THEIRS = "decoder.layers.{layer}.", "model.layers.{layer}."
ATTENTION, MLP = OURS + "self_attention.", OURS + "mlp."
LLAMA = (
    Row("embedding.word_embeddings.weight", ("model.embed_tokens.weight",), ROWS),
    Row(OURS + "input_layernorm.weight", (THEIRS + "input_layernorm.weight",), PLAIN),
    Row(
        ATTENTION + "linear_qkv.weight",
        tuple(THEIRS + f"self_attn.{name}_proj.weight" for name in "qkv"),
        QKV,
    ),
    Row(
        ATTENTION + "linear_qkv.bias",
        tuple(THEIRS + f"self_attn.{name}_proj.bias" for name in "qkv"),
        QKV,
        optional=True,
    ),
    Row(ATTENTION + "linear_proj.weight", (THEIRS + "self_attn.o_proj.weight",), PLAIN),
    Row(ATTENTION + "linear_proj.bias", (THEIRS + "self_attn.o_proj.bias",), PLAIN, optional=True),
    Row(OURS + "pre_mlp_layernorm.weight", (THEIRS + "post_attention_layernorm.weight",), PLAIN),
    Row(
        MLP + "linear_fc1.weight",
        (THEIRS + "mlp.gate_proj.weight", THEIRS + "mlp.up_proj.weight"),
        GATE_UP,
    ),
    Row(
        MLP + "linear_fc1.bias",
        (THEIRS + "mlp.gate_proj.bias", THEIRS + "mlp.up_proj.bias"),
        GATE_UP,
        optional=True,
    ),
    Row(MLP + "linear_fc2.weight", (THEIRS + "mlp.down_proj.weight",), PLAIN),
    Row(MLP + "linear_fc2.bias", (THEIRS + "mlp.down_proj.bias",), PLAIN, optional=True),
    Row("decoder.final_layernorm.weight", ("model.norm.weight",), PLAIN),
    Row("output_layer.weight", ("lm_head.weight",), ROWS, optional=True),
)
BLOCK = "transformer.h.{layer}."
GPT2 = (
    Row("embedding.word_embeddings.weight", ("transformer.wte.weight",), ROWS),
    Row("embedding.position_embeddings.weight", ("transformer.wpe.weight",), PLAIN),
    *(
        Row(OURS + f"{ours}.{kind}", (BLOCK + f"{theirs}.{kind}",), PLAIN)
        for ours, theirs in (("input_layernorm", "ln_1"), ("pre_mlp_layernorm", "ln_2"))
        for kind in ("weight", "bias")
    ),
    Row(ATTENTION + "linear_qkv.weight", (BLOCK + "attn.c_attn.weight",), TURNED_QKV),
    Row(ATTENTION + "linear_qkv.bias", (BLOCK + "attn.c_attn.bias",), BIAS_QKV),
    Row(ATTENTION + "linear_proj.weight", (BLOCK + "attn.c_proj.weight",), TURNED),
    Row(ATTENTION + "linear_proj.bias", (BLOCK + "attn.c_proj.bias",), PLAIN),
    Row(MLP + "linear_fc1.weight", (BLOCK + "mlp.c_fc.weight",), TURNED),
    Row(MLP + "linear_fc1.bias", (BLOCK + "mlp.c_fc.bias",), PLAIN),
    Row(MLP + "linear_fc2.weight", (BLOCK + "mlp.c_proj.weight",), TURNED),
    Row(MLP + "linear_fc2.bias", (BLOCK + "mlp.c_proj.bias",), PLAIN),
    Row("decoder.final_layernorm.weight", ("transformer.ln_f.weight",), PLAIN),
    Row("decoder.final_layernorm.bias", ("transformer.ln_f.bias",), PLAIN),
    Row("output_layer.weight", ("lm_head.weight",), ROWS, optional=True),
)
TABLES = {"llama": LLAMA, "gpt2": GPT2}


def rows_of(architecture: str, layers: int) -> list[Row]:
    """The table written out for every layer."""
    rows: list[Row] = []
    for row in TABLES[architecture]:
        numbers = range(layers) if "{layer}" in row.ours else (0,)
        for layer in numbers:
            theirs = tuple(name.format(layer=layer) for name in row.theirs)
            rows.append(Row(row.ours.format(layer=layer), theirs, row.form, row.optional))
    return rows


def to_hugging_face(
    ours: Mapping[str, Tensor], model: ModelConfig, architecture: str
) -> dict[str, Tensor]:
    """Their tensors from ours; raises DataError when one of ours is missing or not in the table."""
    theirs: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in rows_of(architecture, model.layers):
        if row.ours in ours:
            used.add(row.ours)
            parts = row.form.split(ours[row.ours], model)
            theirs |= dict(zip(row.theirs, (part.contiguous() for part in parts), strict=True))
        elif not row.optional:
            raise DataError(f"{row.ours}: missing; it makes {', '.join(row.theirs)}")
    _check_none_left(set(ours) - used, architecture)
    return theirs


def from_hugging_face(
    theirs: Mapping[str, Tensor], model: ModelConfig, architecture: str
) -> dict[str, Tensor]:
    """Our tensors from theirs; raises DataError when one of theirs is missing, odd or left over."""
    ours: dict[str, Tensor] = {}
    used: set[str] = set()
    for row in rows_of(architecture, model.layers):
        missing = [name for name in row.theirs if name not in theirs]
        if not missing:
            used.update(row.theirs)
            ours[row.ours] = _join(row, [theirs[name] for name in row.theirs], model)
        elif not row.optional:
            raise DataError(f"{missing[0]}: missing; it is part of {row.ours}")
    left = set(theirs) - used
    if model.tied:
        left.discard("lm_head.weight")  # some files repeat the tied embedding
        ours.pop("output_layer.weight", None)
    _check_none_left(left, architecture)
    return ours


def _join(row: Row, parts: list[Tensor], model: ModelConfig) -> Tensor:
    try:
        return row.form.join(parts, model).contiguous()
    except (RuntimeError, ValueError) as error:
        shapes = ", ".join(f"{n} {list(p.shape)}" for n, p in zip(row.theirs, parts, strict=True))
        raise DataError(f"{shapes}: cannot become {row.ours}: {error}") from error


def _check_none_left(left: set[str], architecture: str) -> None:
    if left:
        names = ", ".join(sorted(left)[:3])
        raise DataError(f"{len(left)} tensors have no place in the {architecture} table: {names}")
