"""GPT-NeoX and Pythia: config.json of any age, heads, what is refused."""

from typing import Any

import numpy as np
import pytest

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.gpt_neox import GPT_NEOX
from megatron_jobs.convert.family import rows_of, to_ours
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix, Stored
from megatron_jobs.errors import UserError

PYTHIA_70M: dict[str, Any] = {
    "hidden_act": "gelu",
    "hidden_size": 512,
    "intermediate_size": 2048,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 8,
    "num_hidden_layers": 6,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "vocab_size": 50304,
}


def test_an_old_pythia() -> None:
    model = ModelConfig(**GPT_NEOX.settings(PYTHIA_70M))
    assert (model.rope_share, model.rope_base, model.parallel_residual) == (0.25, 10000, True)
    assert not GPT_NEOX.misfit(model)
    assert model.parameters() == 70_426_624, "as its authors count"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"attention_bias": False}, "attention_bias False: only True can be computed"),
        (
            {"hidden_act": "silu"},
            "hidden_act 'silu': one of gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu only",
        ),
        (
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic': default, linear, llama3, yarn only",
        ),
    ],
)
def test_what_cannot_be_computed_is_named(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        GPT_NEOX.settings(PYTHIA_70M | change)
    assert str(caught.value) == f"config.json: {sentence}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"kv_heads": 2}, "kv_heads 2"),
        ({"head_dim": 32}, "head_dim 32"),
        ({"activation": "swiglu"}, "activation swiglu"),
        ({"norm_offset": True}, "norm_offset True"),
        ({"output_bias": True}, "output_bias True"),
        ({"norm": "rmsnorm"}, "norm rmsnorm"),
    ],
)
def test_what_it_cannot_say_is_named(change: dict[str, Any], sentence: str) -> None:
    model = ModelConfig(**GPT_NEOX.settings(PYTHIA_70M))
    assert GPT_NEOX.misfit(model.model_copy(update=change)) == sentence


def test_an_output_layer_under_its_other_name_and_buffers() -> None:
    small = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}
    model = ModelConfig(**GPT_NEOX.settings(PYTHIA_70M | small), pad_vocab_to=1)
    theirs: dict[str, Matrix] = {
        row.theirs[0]: Stored(np.full(shape_of(row.ours, model), number, np.float32))
        for number, row in enumerate(rows_of(GPT_NEOX, model))
    }
    expected = theirs["embed_out.weight"].array()
    theirs["lm_head.weight"] = theirs.pop("embed_out.weight")
    for buffer in ("bias", "masked_bias", "rotary_emb.inv_freq"):
        theirs[f"gpt_neox.layers.0.attention.{buffer}"] = Stored(np.zeros(3, np.float32))
    ours = to_ours(theirs, GPT_NEOX, model)
    assert np.array_equal(ours["output_layer.weight"].array(), expected)
