"""Phi 3, 3.5 and 4: fused projections, angles for a share of the columns, stretched by longrope."""

from collections.abc import Mapping
from typing import Any

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.angles import ORIGINAL, kind_of, read_angles, said_angles
from megatron_jobs.convert.families import llama
from megatron_jobs.convert.families.llama import ATTENTION, MLP, THEIRS
from megatron_jobs.convert.family import Family, Row
from megatron_jobs.convert.fit import only, unusual
from megatron_jobs.convert.forms import FUSED_QKV

TABLE = (
    *llama.ENDS,
    *llama.NORMS,
    Row(ATTENTION + "linear_qkv.weight", (THEIRS + "self_attn.qkv_proj.weight",), FUSED_QKV),
    Row(ATTENTION + "linear_proj.weight", (THEIRS + "self_attn.o_proj.weight",)),
    Row(MLP + "linear_fc1.weight", (THEIRS + "mlp.gate_up_proj.weight",)),
    Row(MLP + "linear_fc2.weight", (THEIRS + "mlp.down_proj.weight",)),
)
FREE = (llama.FREE | {"window", "rope_share"}) - {"bias"}
FIRST_LENGTH = 4096
"""Of the first training, where config.json does not say it."""
PADDING = 32000
"""Token that transformers takes where config.json names none; a smaller vocabulary fails there."""
OLD_NAMES = ("su", "yarn")
"""Early files called longrope so."""


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Our settings from config.json."""
    only(config, head_dim=config["hidden_size"] // config["num_attention_heads"])
    angles = said_angles(config)
    if kind_of(angles) in OLD_NAMES:
        angles["rope_type"] = "longrope"
    said = {**config, "rope_scaling": None, "rope_parameters": angles}
    said[ORIGINAL] = config.get(ORIGINAL, FIRST_LENGTH)
    return {
        **llama.shape(config),
        **read_angles(said, kinds=("longrope",), partly=True),
        "window": config.get("sliding_window"),
    }


def config(model: ModelConfig) -> dict[str, Any]:
    """config.json from our settings."""
    scaling = model.rope_scaling
    told = llama.told_shape(model)
    del told["head_dim"]  # its code divides hidden_size instead
    first = scaling.original_seq_len if scaling else model.seq_len
    dropout = {"resid_pdrop": model.dropout, "embd_pdrop": model.dropout}
    if model.vocab_size <= PADDING:
        told["pad_token_id"] = None
    return {**told, **dropout, "sliding_window": model.window, ORIGINAL: first}


def misfit(model: ModelConfig) -> str:
    """Why a model is no Phi 3, or nothing."""
    if model.head_size() * model.heads != model.hidden:
        return f"head_dim {model.head_size()}"
    if model.activation not in llama.GATES:
        return f"activation {model.activation}"
    scaling = model.rope_scaling
    if scaling and scaling.kind != "longrope":
        return f"rope_scaling {scaling.kind}"
    return unusual(model, free=FREE)


PHI3 = Family("phi3", "phi3", "Phi3ForCausalLM", TABLE, settings, config, misfit)
