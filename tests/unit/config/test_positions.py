"""Windows and angles that cannot be are said, each in its own words."""

from typing import Any

import pytest

from megatron_jobs.config.latent import LatentAttention
from megatron_jobs.config.model import ModelConfig
from megatron_jobs.config.rope import RopeScaling
from megatron_jobs.config.settings import all_problems

MODEL = ModelConfig(layers=4, hidden=40, heads=4, vocab_size=128, window=8, full_layers=(0, 3))
NOTHING = "does nothing with position = learned; it needs rope"


def long(short: int, far: int) -> dict[str, Any]:
    return {
        "rope_scaling": RopeScaling(
            kind="longrope",
            original_seq_len=32,
            short_factors=(1.0,) * short,
            long_factors=(2.0,) * far,
        )
    }


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"full_layers": (1, 4)}, ("full_layers", "4 is no layer; they are 0 to 3")),
        ({"window": None}, ("full_layers", "does nothing without a window")),
        (
            {"window": None, "full_layers": (), "local_rope_base": 5},
            ("local_rope_base", "does nothing without a window"),
        ),
        (
            {"rope_share": 0.35},
            (
                "rope_share",
                "0.35 of 10 columns are 3, not an even number of 2 or more that a head has",
            ),
        ),
        (
            {"rope_share": 0.1},
            (
                "rope_share",
                "0.1 of 10 columns are 1, not an even number of 2 or more that a head has",
            ),
        ),
        (
            {"rope_share": 1.25},
            (
                "rope_share",
                "1.25 of 10 columns are 12, not an even number of 2 or more that a head has",
            ),
        ),
        (
            {"head_dim": 9},
            ("head_dim", "9 is odd; rotary angles turn pairs of columns"),
        ),
        (
            long(5, 4),
            (
                "rope_scaling.long_factors",
                "4 numbers; there must be one for each pair of 10 columns",
            ),
        ),
        (
            {"rope_scaling": RopeScaling(kind="llama3", original_seq_len=32)},
            ("rope_scaling.factor", "missing; llama3 needs it"),
        ),
        (
            {"rope_scaling": RopeScaling(kind="yarn", factor=2.0)},
            ("rope_scaling.original_seq_len", "missing; yarn needs it"),
        ),
        ({"position": "learned", "rope_share": 0.5}, ("rope_share", NOTHING)),
        ({"position": "learned", "rope_interleaved": True}, ("rope_interleaved", NOTHING)),
        ({"position": "learned", "local_rope_base": 10}, ("local_rope_base", NOTHING)),
        ({"position": "learned", **long(5, 5)}, ("rope_scaling", NOTHING)),
    ],
)
def test_what_cannot_be(change: dict[str, Any], problem: tuple[str, str]) -> None:
    assert list(all_problems(MODEL)) == []
    assert list(all_problems(MODEL.model_copy(update=change))) == [problem]


def test_longrope_has_as_many_factors_as_pairs() -> None:
    assert list(all_problems(MODEL.model_copy(update=long(5, 5)))) == []


def test_latent_attention_has_no_windows() -> None:
    latent = LatentAttention(kv_rank=8, nope_dim=4, rope_dim=4, value_dim=4)
    model = ModelConfig(
        layers=2, hidden=32, heads=4, vocab_size=128, latent=latent, rope_interleaved=True
    )
    assert list(all_problems(model)) == []
    found = list(all_problems(model.model_copy(update={"local_rope_base": 7})))
    assert found == [("local_rope_base", "does nothing without a window")]


def test_windows_of_layers() -> None:
    assert [MODEL.window_of(layer) for layer in range(4)] == [None, 8, 8, None]


def test_a_window_spares_operations() -> None:
    """12 x heads x columns for each token and layer that a token sees."""
    whole = MODEL.model_copy(update={"window": None, "full_layers": ()})
    spared = 2 * (2048 - 8)
    assert whole.flops_per_token() - MODEL.flops_per_token() == 12 * 40 * spared
