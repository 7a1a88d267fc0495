"""Gemma 2 and 3: config.json of any age, and what is refused, word for word."""

from typing import Any

import pytest
import torch
from transformers import Gemma3Config, Gemma3ForCausalLM

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.convert.families.gemma2 import GEMMA2
from megatron_jobs.convert.families.gemma3 import GEMMA3, renamed
from megatron_jobs.convert.family import Family
from megatron_jobs.convert.hugging_face import described
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


PUBLISHED: dict[str, dict[str, Any]] = {
    "4b": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
    "12b": {
        "hidden_size": 3840,
        "intermediate_size": 15360,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "27b": {
        "head_dim": 128,
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "query_pre_attn_scalar": 168,
    },
}
"""What their text_config says beside the angles and the window, and no more."""


def with_pictures(size: str, **text: Any) -> dict[str, Any]:
    """config.json of a published model."""
    said = {
        "model_type": "gemma3_text",
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    own = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}
    return own | {"eos_token_id": [1, 106], "text_config": said | PUBLISHED[size] | text}


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_language_part_of_published_ones(size: str) -> None:
    """What they leave out is what transformers takes, asked itself; weights are counted by it."""
    found = described(with_pictures(size), "config.json", pad_vocab_to=1)
    theirs = Gemma3Config(**with_pictures(size)).text_config
    with torch.device("meta"):
        whole = Gemma3ForCausalLM(theirs)
    model = found.model
    assert model.parameters() == sum(parameter.numel() for parameter in whole.parameters())
    assert (found.family, found.part_of) == (GEMMA3, "gemma3")
    assert (found.config["model_type"], found.config["eos_token_id"]) == ("gemma3_text", [1, 106])
    assert (model.heads, model.kv_heads) == (theirs.num_attention_heads, theirs.num_key_value_heads)
    assert (model.seq_len, model.vocab_size) == (theirs.max_position_embeddings, theirs.vocab_size)
    near = [kind == "sliding_attention" for kind in theirs.layer_types]
    assert [model.window_of(n) is not None for n in range(model.layers)] == near
    assert model.rope_scaling == RopeScaling(kind="linear", factor=8.0)
    scale = model.attention_scale or model.head_size() ** -0.5
    assert scale == theirs.query_pre_attn_scalar**-0.5


def test_names_of_any_age() -> None:
    same = {
        "model.layers.0.mlp.up_proj.weight": (
            "language_model.model.layers.0.mlp.up_proj.weight",
            "model.language_model.layers.0.mlp.up_proj.weight",
            "language_model.layers.0.mlp.up_proj.weight",
            "layers.0.mlp.up_proj.weight",
        ),
        "lm_head.weight": ("language_model.lm_head.weight", "lm_head.weight"),
        "vision_tower.x": ("vision_tower.x",),
        "model.multi_modal_projector.x": ("model.multi_modal_projector.x",),
    }
    model = ModelConfig(**GEMMA3.settings(GEMMA3_1B))
    for name, others in same.items():
        assert {renamed(other, model) for other in (name, *others)} == {name}


LARGER = {
    "language_model_of_another": (
        with_pictures("4b", model_type="gemma2"),
        "text_config.model_type 'gemma2': only 'gemma3_text' can be computed",
    ),
    "tied_in_one": (
        with_pictures("4b", tie_word_embeddings=False) | {"tie_word_embeddings": True},
        "tie_word_embeddings True: only False can be computed",
    ),
    "known": (
        {"model_type": "mistral3", "text_config": {"model_type": "mistral"}},
        "its language part would work, saved by itself as a MistralForCausalLM",
    ),
    "unknown": (
        {"model_type": "x", "text_config": {"model_type": "y"}},
        "its text_config is 'y', which has none either",
    ),
}


@pytest.mark.parametrize("name", LARGER)
def test_other_models_of_more_than_text_are_refused(name: str) -> None:
    config, sentence = LARGER[name]
    with pytest.raises(UserError, match=f"^here: .*{sentence}$"):
        described(config, "here")


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
