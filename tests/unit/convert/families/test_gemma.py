"""Gemma 2 and 3: config.json of any age, and what is refused, word for word."""

from typing import Any

import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.convert.families.gemma2 import GEMMA2
from megatron_jobs.convert.families.gemma3 import GEMMA3
from megatron_jobs.convert.family import Family
from megatron_jobs.errors import UserError

GEMMA2_27B: dict[str, Any] = {
    "attention_bias": False,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "head_dim": 128,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 4608,
    "intermediate_size": 36864,
    "max_position_embeddings": 8192,
    "model_type": "gemma2",
    "num_attention_heads": 32,
    "num_hidden_layers": 46,
    "num_key_value_heads": 16,
    "query_pre_attn_scalar": 144,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "vocab_size": 256000,
}
"""As its first files wrote it."""
GEMMA3_1B: dict[str, Any] = {
    "attention_bias": False,
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 1152,
    "intermediate_size": 6912,
    "max_position_embeddings": 32768,
    "model_type": "gemma3_text",
    "num_attention_heads": 4,
    "num_hidden_layers": 26,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
    "vocab_size": 262144,
}


def test_an_old_gemma_2() -> None:
    model = ModelConfig(**GEMMA2.settings(GEMMA2_27B))
    assert model.attention_scale == 144**-0.5
    assert model.embedding_scale == 4608**0.5
    assert (model.attention_softcap, model.logit_softcap) == (50.0, 30.0)
    assert [model.window_of(n) for n in range(4)] == [4096, None, 4096, None]
    assert model.tied
    assert not GEMMA2.misfit(model)
    assert round(model.parameters() / 1e9, 1) == 27.2, "with the norms, as its authors count"


def test_an_old_gemma_3() -> None:
    model = ModelConfig(**GEMMA3.settings(GEMMA3_1B))
    assert (model.rope_base, model.local_rope_base) == (1_000_000, 10_000)
    assert model.full_layers == (5, 11, 17, 23)
    assert (model.attention_scale, model.attention_softcap, model.logit_softcap) == (None,) * 3
    assert not GEMMA3.misfit(model)
    assert GEMMA2.misfit(model) == "local_rope_base 10000"
    assert model.parameters() == 999_885_952, "as safetensors of the real one say"


def test_an_old_stretch_is_of_the_layers_that_see_everything() -> None:
    stretched = GEMMA3_1B | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    model = ModelConfig(**GEMMA3.settings(stretched))
    assert model.rope_scaling == RopeScaling(kind="linear", factor=8.0)
    assert (model.rope_base, model.local_rope_base) == (1_000_000, 10_000)


REFUSED: list[tuple[Family, dict[str, Any], str]] = [
    (GEMMA2, {"attention_bias": True}, "attention_bias True: only False can be computed"),
    (
        GEMMA3,
        {"use_bidirectional_attention": True},
        "use_bidirectional_attention True: only False can be computed",
    ),
    (
        GEMMA2,
        {"hidden_activation": "relu"},
        "hidden_activation 'relu': only 'gelu_pytorch_tanh' can be computed",
    ),
    (
        GEMMA2,
        {"hidden_activation": None, "hidden_act": "silu"},
        "hidden_act 'silu': only 'gelu_pytorch_tanh' can be computed",
    ),
    (
        GEMMA2,
        {"layer_types": ["chunked_attention"] * 46},
        "layer_types 'chunked_attention': full_attention or sliding_attention only",
    ),
    (
        GEMMA3,
        {"sliding_window": None},
        "sliding_window is missing; layer_types has sliding_attention",
    ),
    (GEMMA3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0: Gemma 3 has none"),
    (
        GEMMA3,
        {"rope_parameters": {"sliding_attention": {"rope_type": "yarn"}}},
        "rope_type 'yarn': only 'default' can be computed",
    ),
    (
        GEMMA3,
        {"rope_parameters": {"rope_theta": 5.0}},
        "rope_parameters.rope_theta: full_attention and sliding_attention only",
    ),
    (
        GEMMA3,
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
        "rope_type 'yarn': default, linear only",
    ),
]


@pytest.mark.parametrize(("family", "change", "sentence"), REFUSED)
def test_what_cannot_be_computed_is_named(
    family: Family, change: dict[str, Any], sentence: str
) -> None:
    whole = (GEMMA2_27B if family is GEMMA2 else GEMMA3_1B) | change
    with pytest.raises(UserError) as caught:
        family.settings(whole)
    assert str(caught.value) == f"config.json: {sentence}"


MISFITS = {
    "embedding_scale 1.0": {"embedding_scale": 1.0},
    "attention_scale 0.3": {"attention_scale": 0.3},
    "norm_place after": {"norm_place": "after"},
    "norm_offset False": {"norm_offset": False},
    "activation geglu": {"activation": "geglu"},
    "qk_norm False": {"qk_norm": False},
    "attention_softcap 3.0": {"attention_softcap": 3.0},
    "bias True": {"bias": True},
    "heads 7": {"heads": 7},
    "local_rope_base None with rope_scaling": {
        "local_rope_base": None,
        "rope_scaling": RopeScaling(kind="linear", factor=2.0),
    },
}


@pytest.mark.parametrize("sentence", MISFITS)
def test_what_gemma_3_cannot_say_is_named(sentence: str) -> None:
    model = ModelConfig(**GEMMA3.settings(GEMMA3_1B))
    assert GEMMA3.misfit(model.model_copy(update=MISFITS[sentence])) == sentence
