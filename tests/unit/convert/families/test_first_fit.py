"""A model of ours that fits several architectures means the same in each of them."""

import pytest
import transformers

from megatron_jobs.config.model import ModelConfig
from megatron_jobs.convert.families import FAMILIES
from tests.family_models import CASES, family_of


def spelled_out(model: ModelConfig) -> dict[str, object]:
    """Settings, with those that follow from others."""
    sizes = {"head_dim": model.head_size(), "kv_heads": model.groups(), "ffn": model.ffn_size()}
    return model.model_dump() | sizes


@pytest.mark.parametrize("name", CASES)
def test_no_family_takes_what_it_cannot_say(name: str) -> None:
    case = CASES[name]
    theirs = getattr(transformers, case.config)(**case.values).to_dict()
    model = ModelConfig(**family_of(name).settings(theirs))
    fitting = {key: family for key, family in FAMILIES.items() if not family.misfit(model)}
    assert family_of(name).name in fitting
    for key, family in fitting.items():
        again = ModelConfig(**family.settings(family.config(model)))
        assert spelled_out(again) == spelled_out(model), key
