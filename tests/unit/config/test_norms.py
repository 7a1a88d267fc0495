"""Norms and streams that cannot be are said before anything starts."""

import pytest

from megatron_jobs.config.model import ModelConfig

SAID = {
    "qk_norm_all": [
        ({"qk_norm_all": True}, "there is nothing to normalise together; it needs qk_norm: true"),
        (
            {"qk_norm": True, "qk_norm_all": True, "norm": "layernorm"},
            "over all heads norm = layernorm cannot be; rmsnorm can",
        ),
    ],
    "parallel_residual": [
        (
            {"parallel_residual": True, "norm_place": "residual"},
            "norm_place is residual, no norm can follow two sums at once; "
            "norm_place: before, after or both",
        ),
    ],
}


@pytest.mark.parametrize(
    ("setting", "values", "sentence"),
    [(setting, *case) for setting, cases in SAID.items() for case in cases],
)
def test_it_is_said(setting: str, values: dict[str, object], sentence: str) -> None:
    model = ModelConfig(layers=1, hidden=8, heads=2, vocab_size=9, **values)
    assert list(model.problems()) == [(setting, sentence)]
