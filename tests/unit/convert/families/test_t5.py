"""T5's table against files of transformers, of both versions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import T5Config

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.t5 import T5
from megatron_jobs.convert.family import settings_of, to_ours, to_theirs
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.errors import DataError, UserError
from tests.encoder_models import T5S, t5
from tests.family_models import read_tensors

Tensors = dict[str, Matrix]


def saved(version: str, folder: Path) -> tuple[dict[str, Any], Tensors]:
    """config.json and tensors, as transformers writes them."""
    t5(version).save_pretrained(folder)
    return read_limited_json(folder / "config.json", 1 << 20), read_tensors(folder)


def both_ways(config: dict[str, Any], theirs: Tensors) -> tuple[ModelConfig, Tensors, Tensors]:
    """Settings, tensors in our form, and those in theirs again."""
    model = ModelConfig(**settings_of(T5, config, theirs))
    assert not list(model.problems())
    ours = to_ours(theirs, T5, model)
    assert {n: m.shape for n, m in ours.items()} == {n: shape_of(n, model) for n in ours}
    return model, ours, to_theirs(ours, T5, model)


def check_equal(found: Tensors, expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, matrix in expected.items():
        assert np.array_equal(found[name].array(), matrix.array()), name


@pytest.mark.parametrize("version", T5S)
def test_there_and_back(version: str, tmp_path: Path) -> None:
    config, theirs = saved(version, tmp_path)
    model, _, back = both_ways(config, theirs)
    check_equal(back, theirs)
    assert not T5.misfit(model)
    assert model.tied == (version == "1.0")
    assert model.logit_scale == (32**-0.5 if version == "1.0" else None)


@pytest.mark.parametrize("version", T5S)
def test_our_config_says_the_same_to_transformers(version: str, tmp_path: Path) -> None:
    config, theirs = saved(version, tmp_path)
    model, _, _ = both_ways(config, theirs)
    wanted, found = T5Config(**config), T5Config(**config | T5.config(model))
    for name in T5.config(model):
        if name != "n_positions":  # ours has a longest sequence
            assert getattr(found, name) == getattr(wanted, name), name
    assert found.scale_decoder_outputs == (version == "1.0")


def test_copies_of_the_embedding_are_one(tmp_path: Path) -> None:
    config, theirs = saved("1.0", tmp_path)
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    _, _, back = both_ways(config, theirs | dict.fromkeys(names, theirs["shared.weight"]))
    check_equal(back, theirs)


def test_what_older_versions_say_of_the_output_layer(tmp_path: Path) -> None:
    """tie_word_embeddings alone, before transformers 5 wrote true always and the scale beside."""
    config, theirs = saved("1.1", tmp_path)
    assert config["tie_word_embeddings"]
    old = config | {"tie_word_embeddings": False}
    del old["scale_decoder_outputs"]
    model, _, back = both_ways(old, theirs)
    assert not model.tied
    assert model.logit_scale is None
    check_equal(back, theirs)
    assert settings_of(T5, old, ())["tied"] is False


def test_keys_and_values_lie_by_head(tmp_path: Path) -> None:
    config, theirs = saved("1.0", tmp_path)
    _, ours, _ = both_ways(config, theirs)
    fused = ours["decoder.layers.1.cross_attention.linear_kv.weight"].array().reshape(4, 2, 12, 32)
    for place, name in enumerate("kv"):
        whole = theirs[f"decoder.block.1.layer.1.EncDecAttention.{name}.weight"].array()
        assert np.array_equal(fused[3, place], whole[36:48])


def test_gate_comes_first(tmp_path: Path) -> None:
    config, theirs = saved("1.1", tmp_path)
    _, ours, _ = both_ways(config, theirs)
    joined = ours["decoder.layers.2.mlp.linear_fc1.weight"].array()
    gate = theirs["decoder.block.2.layer.2.DenseReluDense.wi_0.weight"].array()
    assert np.array_equal(joined[:48], gate)


def test_a_number_of_distances_nobody_uses_is_ignored(tmp_path: Path) -> None:
    config, theirs = saved("1.0", tmp_path)
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    _, _, back = both_ways(config, theirs | {unused: theirs["shared.weight"]})
    check_equal(back, theirs)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    config, theirs = saved("1.0", tmp_path)
    with pytest.raises(UserError, match="feed_forward_proj 'gated-silu': relu, gelu, gated-gelu"):
        T5.settings(config | {"feed_forward_proj": "gated-silu"})
    encoder = {name: m for name, m in theirs.items() if not name.startswith("decoder.")}
    with pytest.raises(UserError, match="a t5 with no decoder: T5ForConditionalGeneration only"):
        settings_of(T5, config, encoder)
    model = ModelConfig(**settings_of(T5, config, theirs))
    lacking = {n: m for n, m in theirs.items() if "EncDecAttention.v" not in n}
    with pytest.raises(DataError, match=r"block\.0\.layer\.1\.EncDecAttention\.v\.weight: missing"):
        to_ours(lacking, T5, model)
