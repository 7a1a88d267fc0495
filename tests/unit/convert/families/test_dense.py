"""Published models of Llama's shape: their settings, their sizes, and variants that are refused."""

from typing import Any

import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.convert.families import FAMILIES
from megatron_jobs.convert.hugging_face import described, fitting_family
from megatron_jobs.errors import DataError, UserError

LLAMA31: dict[str, Any] = {
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "vocab_size": 128256,
}
LLAMA32 = LLAMA31 | {
    "head_dim": 64,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "rope_scaling": LLAMA31["rope_scaling"] | {"factor": 32.0},
    "tie_word_embeddings": True,
}
MISTRAL: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
QWEN25: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
PHI35: dict[str, Any] = {
    "model_type": "phi3",
    "attention_bias": False,
    "embd_pdrop": 0.0,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {"long_factor": [2.0] * 48, "short_factor": [1.1] * 48, "type": "longrope"},
    "rope_theta": 10000.0,
    "sliding_window": 262144,
    "tie_word_embeddings": False,
    "vocab_size": 32064,
}
PUBLISHED = {
    "llama 3.1 8b": (LLAMA31, 8_030_261_248),
    "llama 3.2 1b": (LLAMA32, 1_235_814_400),
    "mistral 7b": (MISTRAL, 7_241_732_096),
    "qwen 2.5 0.5b": (QWEN25, 494_032_768),
    "qwen 3 0.6b": (QWEN3, 596_049_920),
    "phi 3.5 mini": (PHI35, 3_821_079_552),
}


def read(config: dict[str, Any]) -> ModelConfig:
    return described(config, "config.json", pad_vocab_to=1).model


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models(name: str) -> None:
    """As many parameters as their authors count, and the way back says the same."""
    config, parameters = PUBLISHED[name]
    model = read(config)
    assert model.parameters() == parameters
    family = FAMILIES[config["model_type"]]
    assert fitting_family(model, None).name == family.name
    again = read(family.config(model) | {"model_type": family.model_type})
    assert again.model_copy(update={"head_dim": model.head_dim}) == model
    assert again.head_size() == model.head_size()


def test_settings_of_llama_3_2() -> None:
    assert read(LLAMA32) == ModelConfig(
        layers=16,
        hidden=2048,
        heads=32,
        kv_heads=8,
        head_dim=64,
        ffn=8192,
        vocab_size=128256,
        pad_vocab_to=1,
        seq_len=131072,
        rope_base=500000,
        rope_scaling=RopeScaling(
            kind="llama3",
            factor=32.0,
            original_seq_len=8192,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
        ),
        tied=True,
    )


def test_angles_are_told_to_old_and_to_new_readers() -> None:
    """What older code reads from `rope_theta` and `rope_scaling`, newer from `rope_parameters`."""
    told = FAMILIES["llama"].config(read(LLAMA31))
    for key in ("rope_theta", "rope_scaling"):
        assert told[key] == LLAMA31[key]
    assert told["rope_parameters"] == {**LLAMA31["rope_scaling"], "rope_theta": 500000.0}
    assert FAMILIES["mistral"].config(read(MISTRAL))["rope_scaling"] is None


def test_windows_of_qwen_begin_at_a_layer() -> None:
    config = QWEN25 | {"use_sliding_window": True, "max_window_layers": 21}
    model = read(config)
    assert (model.window, model.full_layers) == (32768, tuple(range(21)))
    told = FAMILIES["qwen2"].config(model)
    assert (told["max_window_layers"], told["use_sliding_window"]) == (21, True)
    assert told["layer_types"] == ["full_attention"] * 21 + ["sliding_attention"] * 3
    assert read(QWEN25).window is None


def test_early_names_of_longrope() -> None:
    scaling = dict(PHI35["rope_scaling"])
    for old in ("su", "yarn"):
        assert read(PHI35 | {"rope_scaling": scaling | {"type": old}}) == read(PHI35)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (LLAMA31, {"hidden_act": "relu"}, "hidden_act 'relu': silu, gelu, gelu_pytorch_tanh only"),
        (LLAMA31, {"mlp_bias": True}, "attention_bias False, mlp_bias True: must be equal"),
        (
            LLAMA31,
            {"rope_theta": 1e4 + 0.5},
            "rope_theta 10000.5: only whole numbers can be computed",
        ),
        (
            LLAMA31,
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic': default, linear, llama3, yarn, longrope only",
        ),
        (
            LLAMA31,
            {"rope_scaling": {"type": "default", "mrope_section": [16, 24, 24]}},
            "rope_parameters.mrope_section: unknown, and may change angles",
        ),
        (
            LLAMA31,
            {"rope_scaling": {"rope_type": "linear"}},
            "rope_parameters: factor missing; linear needs it",
        ),
        (
            LLAMA31,
            {"partial_rotary_factor": 0.5},
            "partial_rotary_factor 0.5: 1 only, in this architecture",
        ),
        (
            MISTRAL,
            {"layer_types": ["full_attention"] * 32},
            f"layer_types {['full_attention'] * 32!r}: only None can be computed",
        ),
        (QWEN25, {"head_dim": 32}, "head_dim 32: only 64 can be computed"),
        (
            QWEN25,
            {"layer_types": ["chunked_attention"] * 24},
            "layer_types 'chunked_attention': full_attention or sliding_attention only",
        ),
        (QWEN3, {"attention_bias": True}, "attention_bias True: only False can be computed"),
        (
            PHI35,
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
            "rope_type 'linear': default, longrope only",
        ),
    ],
)
def test_variants_that_are_refused(
    config: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        read(config | change)
    assert str(caught.value) == f"config.json: {message}"


def test_factors_that_do_not_fit_the_columns() -> None:
    scaling = PHI35["rope_scaling"] | {"short_factor": [1.0] * 47}
    with pytest.raises(DataError, match=r"short_factors: 47 numbers; there must be one for each"):
        read(PHI35 | {"rope_scaling": scaling})


@pytest.mark.parametrize(
    ("family", "change", "fault"),
    [
        ("llama", {"window": 8}, "window 8"),
        ("llama", {"qkv_bias": True}, "qkv_bias True"),
        ("llama", {"activation": "relu"}, "activation relu"),
        ("llama", {"rope_share": 0.5}, "rope_share 0.5"),
        ("llama", {"heads": 3, "head_dim": 16}, "heads 3"),
        ("mistral", {"window": 8, "full_layers": (1,)}, "full_layers (1,)"),
        ("qwen2", {}, "qkv_bias False"),
        ("qwen2", {"qkv_bias": True, "head_dim": 32}, "head_dim 32"),
        ("qwen3", {"qk_norm": True, "qk_norm_all": True}, "qk_norm_all True"),
        ("phi3", {"head_dim": 32}, "head_dim 32"),
        ("phi3", {"rope_scaling": RopeScaling(kind="linear", factor=2.0)}, "rope_scaling linear"),
        ("phi3", {"rope_interleaved": True}, "rope_interleaved True"),
    ],
)
def test_models_of_another_kind_do_not_fit(family: str, change: dict[str, Any], fault: str) -> None:
    model = ModelConfig(layers=2, hidden=64, heads=4, vocab_size=128)
    assert FAMILIES[family].misfit(model.model_copy(update=change)) == fault
