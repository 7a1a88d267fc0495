"""What encoders (BERT) and encoders with a decoder (T5) may be beside plain decoders."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.settings import Problem

if TYPE_CHECKING:
    from megatron_jobs.config.model import ModelConfig

PLAIN: dict[str, Any] = {
    "experts": 0,
    "latent": None,
    "window": None,
    "qk_norm": False,
    "parallel_residual": False,
    "norm_offset": False,
    "attention_softcap": None,
    "logit_softcap": None,
    "embedding_scale": None,
}
"""Settings of decoders alone."""
NO_ENCODER: dict[str, Any] = {
    "encoder_layers": 0,
    "token_types": 0,
    "pooler": False,
    "sentence_head": False,
    "token_head": True,
    "logit_scale": None,
}
ENCODER = PLAIN | {
    "encoder_layers": 0,
    "position": "learned",
    "norm_place": "residual",
    "logit_scale": None,
}
BOTH = PLAIN | {
    "position": "relative",
    "norm_place": "before",
    "norm": "rmsnorm",
    "bias": False,
    "output_bias": False,
    "token_types": 0,
    "pooler": False,
    "sentence_head": False,
    "token_head": True,
}
ONLY = {"decoder": NO_ENCODER, "encoder": ENCODER, "encoder_decoder": BOTH}
"""Kind -> settings that it has one value of."""
NAMES = {"decoder": "a decoder", "encoder": "an encoder", "encoder_decoder": "an encoder_decoder"}


def kind_problems(model: ModelConfig) -> Iterator[Problem]:
    """Settings that a model of this kind cannot have."""
    for name, wanted in ONLY[model.kind].items():
        found = getattr(model, name)
        if found != wanted:
            yield name, f"{found}: {NAMES[model.kind]} has {wanted} only"
    if model.kind == "decoder":
        if model.position == "relative":
            yield "position", "relative: an encoder_decoder has it only"
        return
    if model.groups() != model.heads:
        yield "kv_heads", f"{model.kv_heads}: {NAMES[model.kind]} has as many as heads only"
    if model.kind == "encoder_decoder" and not model.encoder_layers:
        yield "encoder_layers", "0: an encoder_decoder has at least one"
    if model.sentence_head and not model.pooler:
        yield "sentence_head", "it reads what the pooler says, and there is none; pooler: true"


def kind_mesh_problems(model: ModelConfig, mesh: Mesh) -> Iterator[Problem]:
    """Axes that cannot cut a model of this kind."""
    if model.kind == "decoder":
        return
    if mesh.context > 1:
        ranks = f"{mesh.context} context ranks"
        yield "kind", f"{NAMES[model.kind]} cannot be cut over {ranks}; mesh.context: 1 works"
    if model.kind == "encoder_decoder" and mesh.pipeline > 1:
        why = "megatron-core's schedules hand on what the stage before has made alone, and every "
        why += "layer of the decoder reads the encoder's end too"
        stages = f"{mesh.pipeline} pipeline stages"
        works = "mesh.pipeline: 1 works, and mesh.tensor cuts it"
        yield "kind", f"an encoder_decoder cannot be cut into {stages}: {why}; {works}"


def only_decoders(kind: str, what: str) -> str:
    """Why a stage cannot take a model of a kind, or nothing; `what` it does: `pretrain trains`."""
    rule = f"{what} decoders only; `convert` takes every kind"
    return "" if kind == "decoder" else f"{NAMES.get(kind, kind)}: {rule}"


def kind_parameters(model: ModelConfig) -> int:
    """Numbers in a model that is no plain decoder."""
    table = model.padded_vocab() * model.hidden
    own_output = 0 if model.tied else table
    if model.kind == "encoder":
        return table + own_output * model.token_head + _around_encoder(model)
    relative = 2 * model.relative_buckets * model.heads
    norm = _norm(model)
    encoder = model.encoder_layers * _layer(model) + norm
    decoder = model.layers * (_layer(model) + _attention(model) + norm) + norm
    return table + own_output + relative + encoder + decoder


def _around_encoder(model: ModelConfig) -> int:
    """Parameters of an encoder but for its words: positions, segments, layers, heads."""
    square = model.hidden * model.hidden + model.hidden
    embedding = (model.seq_len + model.token_types) * model.hidden + _norm(model)
    heads = square * model.pooler + (2 * model.hidden + 2) * model.sentence_head
    if model.token_head:
        heads += square + _norm(model) + model.padded_vocab() * model.output_bias
    return embedding + model.layers * _layer(model) + heads


def _layer(model: ModelConfig) -> int:
    inner = model.ffn_size() * (2 if model.is_gated() else 1)
    block = model.hidden * (inner + model.ffn_size()) + (inner + model.hidden) * model.bias
    return _attention(model) + block + 2 * _norm(model)


def _attention(model: ModelConfig) -> int:
    width = model.heads * model.head_size()
    return 4 * model.hidden * width + (3 * width + model.hidden) * model.bias


def _norm(model: ModelConfig) -> int:
    return model.hidden * (2 if model.norm == "layernorm" else 1)
