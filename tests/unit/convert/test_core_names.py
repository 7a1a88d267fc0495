"""Names of tensors in megatron-core's checkpoints."""

import pytest

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.core_names import Place, leading_axes, name_of, place_of

SIZES = {"layers": 4, "hidden": 32, "heads": 4, "ffn": 48, "vocab_size": 100}
DENSE = ModelConfig(**SIZES)
MIXED = ModelConfig(**SIZES, experts=8)
FIRST_DENSE = ModelConfig(**SIZES, experts=8, dense_layers=(0,))
LAYER = "decoder.layers."
FC1 = "mlp.experts.experts.linear_fc1.weight"
CASES = [
    (DENSE, "embedding.word_embeddings.weight", "embedding.word_embeddings.weight", (), ()),
    (DENSE, "decoder.final_layernorm.weight", "decoder.final_layernorm.weight", (), ()),
    (DENSE, LAYER + "2.mlp.linear_fc1.weight", LAYER + "mlp.linear_fc1.weight", (2,), (4,)),
    (
        DENSE, LAYER + "3.input_layernorm.bias",
        LAYER + "self_attention.linear_qkv.layer_norm_bias", (3,), (4,),
    ),
    (
        DENSE, LAYER + "1.pre_mlp_layernorm.weight",
        LAYER + "mlp.linear_fc1.layer_norm_weight", (1,), (4,),
    ),
    (
        MIXED, LAYER + "1.pre_mlp_layernorm.weight", LAYER + "pre_mlp_layernorm.weight",
        (1,), (4,),
    ),
    (
        MIXED, LAYER + "1.mlp.experts.local_experts.5.linear_fc1.weight", LAYER + FC1,
        (1, 5), (4, 8),
    ),
    (
        MIXED, LAYER + "1.mlp.shared_experts.linear_fc1.weight",
        LAYER + "mlp.shared_experts.linear_fc1.weight", (1,), (4,),
    ),
    (
        FIRST_DENSE, LAYER + "1.mlp.experts.local_experts.5.linear_fc1.weight",
        LAYER + "1." + FC1, (5,), (8,),
    ),
    (
        FIRST_DENSE, LAYER + "0.pre_mlp_layernorm.weight",
        LAYER + "0.mlp.linear_fc1.layer_norm_weight", (), (),
    ),
    (
        FIRST_DENSE, LAYER + "1.pre_mlp_layernorm.weight",
        LAYER + "1.pre_mlp_layernorm.weight", (), (),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("model", "name", "key", "index", "counts"), CASES)
def test_both_ways(
    model: ModelConfig, name: str, key: str, index: tuple[int, ...], counts: tuple[int, ...]
) -> None:
    assert place_of(name, model) == Place(key, index, counts)
    assert name_of(key, index) == name
    assert leading_axes(key) == len(index)


def test_latent_attention_keeps_the_norm_before_it_apart() -> None:
    latent = LatentAttention(kv_rank=8, nope_dim=8, rope_dim=4, value_dim=8)
    model = DENSE.model_copy(update={"latent": latent})
    assert place_of(LAYER + "0.input_layernorm.weight", model).key == (
        LAYER + "input_layernorm.weight"
    )


def test_the_encoder_of_two_stacks_has_layers_of_its_own() -> None:
    model = ModelConfig(**SIZES, kind="encoder_decoder", encoder_layers=6)
    assert place_of("encoder.layers.5.mlp.linear_fc2.weight", model).counts == (6,)
    assert place_of("decoder.layers.3.mlp.linear_fc2.weight", model).counts == (4,)
    alone = ModelConfig(**SIZES, kind="encoder")
    assert place_of("encoder.layers.3.mlp.linear_fc2.weight", alone).counts == (4,)


def test_layers_and_experts_that_are_part_of_the_key() -> None:
    assert name_of("decoder.layers.7.mlp.experts.experts.3.linear_fc2.weight") == (
        "decoder.layers.7.mlp.experts.local_experts.3.linear_fc2.weight"
    )


def test_a_wrong_number_of_indices_is_a_bug() -> None:
    with pytest.raises(AssertionError, match=r"has 2 leading axes"):
        name_of(LAYER + FC1, (1,))
