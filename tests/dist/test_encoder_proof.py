"""The proof of a conversion knows right BERTs and T5s from wrong ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megatron_jobs.checkpoint.diagnosis import Models
from megatron_jobs.checkpoint.fill import fill
from megatron_jobs.checkpoint.prompts import Prompt
from megatron_jobs.checkpoint.proof import Proof, open_theirs, prove_models
from megatron_jobs.config.mesh import Mesh
from megatron_jobs.model.build import build_model
from megatron_jobs.parallel.groups import open_groups
from megatron_jobs.runtime.rank import Rank
from tests.encoder_models import bert, question, read_encoder, t5
from tests.ranks import on_ranks

MADE: dict[str, tuple[Callable[[], Any], str, str]] = {
    "states": (
        lambda: bert("BertModel"),
        "encoder.layers.1.post_self_attn_layernorm.weight",
        "encoder.layers.1.post_mlp_layernorm.weight",
    ),
    "words": (
        lambda: bert("BertForMaskedLM"),
        "lm_head.dense.bias",
        "lm_head.layer_norm.bias",
    ),
    "t5": (
        lambda: t5("1.1"),
        "decoder.layers.1.cross_attention.linear_q.weight",
        "decoder.layers.0.cross_attention.linear_q.weight",
    ),
}
"""What is made, and two tensors of ours that a wrong conversion exchanges."""


def proved(folder: Path, *exchanged: str) -> Proof:
    """What the proof says of the model in `folder`."""

    def work(rank: Rank) -> Proof:
        open_groups(Mesh(), seed=1)
        model, tensors = read_encoder(folder)
        named = dict(tensors)
        if exchanged:
            one, two = exchanged
            named |= {one: tensors[two], two: tensors[one]}

        def ours() -> Any:
            (chunk,) = build_model(model, Mesh(), seed=None)
            fill([chunk], named)
            return chunk

        models = Models(ours, lambda: open_theirs(folder, model), model)
        return prove_models(models, [Prompt("probe", question().tokens)])

    (found,) = on_ranks(1, work)
    assert isinstance(found, Proof)
    return found


@pytest.mark.parametrize("name", MADE)
def test_right_and_wrong(name: str, tmp_path: Path) -> None:
    make, one, two = MADE[name]
    make().save_pretrained(tmp_path)
    right = proved(tmp_path)
    assert right.is_same(), right.faults
    assert right.numbers()["max_logit_difference"] < 1e-4
    assert proved(tmp_path, one, two).faults
