"""What encoders and encoders with a decoder can be; the numbers are counted by their modules too,
in tests/dist/test_encoders.py."""

import importlib
from typing import Any

import pytest

from megatron_jobs.config.kinds import only_decoders
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.config.model import ModelConfig

SIZES: dict[str, Any] = {"layers": 2, "hidden": 32, "heads": 4, "vocab_size": 300}
ENCODER: dict[str, Any] = SIZES | {
    "kind": "encoder",
    "position": "learned",
    "norm": "layernorm",
    "norm_place": "residual",
    "activation": "gelu",
    "bias": True,
    "tied": True,
    "output_bias": True,
}
BOTH: dict[str, Any] = SIZES | {
    "kind": "encoder_decoder",
    "encoder_layers": 2,
    "position": "relative",
    "activation": "relu",
    "tied": True,
}


@pytest.mark.parametrize("values", [SIZES, ENCODER, BOTH], ids=["decoder", "encoder", "both"])
def test_each_kind_can_be(values: dict[str, Any]) -> None:
    assert not list(ModelConfig(**values).problems())


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (SIZES | {"encoder_layers": 2}, ("encoder_layers", "2: a decoder has 0 only")),
        (SIZES | {"pooler": True}, ("pooler", "True: a decoder has False only")),
        (SIZES | {"token_head": False}, ("token_head", "False: a decoder has True only")),
        (
            SIZES | {"position": "relative"},
            ("position", "relative: an encoder_decoder has it only"),
        ),
        (
            ENCODER | {"norm_place": "before"},
            ("norm_place", "before: an encoder has residual only"),
        ),
        (ENCODER | {"kv_heads": 2}, ("kv_heads", "2: an encoder has as many as heads only")),
        (
            ENCODER | {"sentence_head": True},
            ("sentence_head", "it reads what the pooler says, and there is none; pooler: true"),
        ),
        (
            BOTH | {"encoder_layers": 0},
            ("encoder_layers", "0: an encoder_decoder has at least one"),
        ),
        (BOTH | {"bias": True}, ("bias", "True: an encoder_decoder has False only")),
    ],
)
def test_what_a_kind_cannot_have(values: dict[str, Any], problem: tuple[str, str]) -> None:
    assert problem in list(ModelConfig(**values).problems())


def test_axes_that_cannot_cut_it() -> None:
    both, encoder = ModelConfig(**BOTH), ModelConfig(**ENCODER)
    assert not list(both.mesh_problems(Mesh(tensor=2)))
    assert not list(encoder.mesh_problems(Mesh(tensor=2, pipeline=2)))
    why = "megatron-core's schedules hand on what the stage before has made alone, and every "
    why += "layer of the decoder reads the encoder's end too"
    works = "mesh.pipeline: 1 works, and mesh.tensor cuts it"
    stages = f"an encoder_decoder cannot be cut into 2 pipeline stages: {why}; {works}"
    assert list(both.mesh_problems(Mesh(pipeline=2))) == [("kind", stages)]
    ranks = "an encoder cannot be cut over 2 context ranks; mesh.context: 1 works"
    assert list(encoder.mesh_problems(Mesh(context=2))) == [("kind", ranks)]


def test_megatron_core_knows_no_pipeline_of_an_encoder_and_a_decoder() -> None:
    """When it does, the refusal of one is to go."""
    importlib.import_module("megatron_jobs.parallel")  # megatron-core as it is without triton
    from megatron.core.enums import ModelType

    assert [kind.name for kind in ModelType] == ["encoder_or_decoder"]


def test_parameters_by_hand() -> None:
    """Of BERT's base size, as its paper says 110 million: 109,482,240 without its heads."""
    base = ModelConfig(
        **ENCODER
        | {"layers": 12, "hidden": 768, "heads": 12, "vocab_size": 30522, "pad_vocab_to": 1}
        | {"seq_len": 512, "token_types": 2, "pooler": True, "token_head": False}
        | {"output_bias": False}
    )
    assert base.parameters() == 109_482_240
    small = ModelConfig(
        **BOTH
        | {"layers": 6, "encoder_layers": 6, "hidden": 512, "heads": 8, "head_dim": 64}
        | {"ffn": 2048, "vocab_size": 32128, "pad_vocab_to": 1}
    )
    assert small.parameters() == 60_506_624  # t5-small


def test_only_decoders() -> None:
    assert only_decoders("decoder", "pretrain trains") == ""
    told = "an encoder: pretrain trains decoders only; `convert` takes every kind"
    assert only_decoders("encoder", "pretrain trains") == told
