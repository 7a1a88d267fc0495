"""OLMo 2: config.json of the first files, what is refused."""

from typing import Any

import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.olmo2 import OLMO2
from megatron_jobs.errors import UserError

OLMO2_7B: dict[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "model_type": "olmo2",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 500000,
    "tie_word_embeddings": False,
    "vocab_size": 100352,
}


def test_the_first_files() -> None:
    model = ModelConfig(**OLMO2.settings(OLMO2_7B))
    assert (model.norm_place, model.qk_norm, model.qk_norm_all) == ("after", True, True)
    assert model.rope_base == 500000
    assert not OLMO2.misfit(model)
    assert model.parameters() == 7_298_617_344, "as its authors count"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attention_bias": True}, "attention_bias True: only False can be computed"),
        ({"head_dim": 64}, "head_dim 64: 32 heads must be as wide as hidden_size 4096"),
    ],
)
def test_what_cannot_be_computed_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        OLMO2.settings(OLMO2_7B | change)
    assert str(caught.value) == f"config.json: {sentence}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"head_dim": 64}, "head_dim 64"),
        ({"qk_norm_all": False}, "qk_norm_all False"),
        ({"norm_place": "before"}, "norm_place before"),
        ({"window": 9}, "window 9"),
        ({"activation": "gelu"}, "activation gelu"),
    ],
)
def test_what_it_cannot_say_is_named(change: dict[str, Any], sentence: str) -> None:
    model = ModelConfig(**OLMO2.settings(OLMO2_7B))
    assert OLMO2.misfit(model.model_copy(update=change)) == sentence
